import { LidoError } from "../../api/errors.ts";

/** Lists of system calls as LXC and LXD write them: one a line, `NAME [ACTION] [[INDEX,VALUE,OPERATOR[,MASK]]]…`.
 * @see lxc.container.conf(5), "SECCOMP CONFIGURATION"; parse_config_v2() in src/lxc/seccomp.c */

export interface SyscallRule {
  readonly name: string;
  /** What happens to a call; absent for the list's default: refused calls end the thread, allowed ones are made. */
  readonly action?: SyscallAction;
  /** All of them must hold. */
  readonly conditions: readonly SyscallCondition[];
}

export type SyscallAction =
  | { readonly kind: "allow" | "kill" | "trap" }
  | { readonly kind: "errno"; readonly errno: number };

export interface SyscallCondition {
  /** Number of the argument, from 0. */
  readonly index: number;
  readonly value: number;
  readonly operator: string;
  /** For `SCMP_CMP_MASKED_EQ`. */
  readonly mask?: number;
}

/** Line of a list that refuses `umount -f`. */
export const rejectForceUmount = "reject_force_umount";

const linesMax = 1000;
const errnoMax = 4095;
const operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map((name) => `SCMP_CMP_${name}`);
const condition =
  /\[\s*([0-5])\s*,\s*(0x[0-9a-f]{1,13}|\d{1,15})\s*,\s*([A-Z_]+)\s*(?:,\s*(0x[0-9a-f]{1,13}|\d{1,15})\s*)?\]/gi;

/** Empty lines and lines that begin with # are ignored; `[all]` may precede a rule.
 * @throws {LidoError} bad_request, naming the line and what is allowed. */
export function parseSyscalls(text: string): SyscallRule[] {
  const lines = text.split("\n").map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length > linesMax) throw refused(`Invalid list of system calls: at most ${linesMax} lines are allowed`);
  return lines.filter((line) => line !== "[all]").map(parseLine);
}

function parseLine(line: string): SyscallRule {
  if (line.startsWith("[")) {
    throw refused(`Invalid system call "${line}": rules for one instruction set are not supported, [all] is`);
  }
  const match = /^([a-z_][a-z0-9_]*)(?:\s+(allow|kill|trap|errno\s+\d{1,4}))?((?:\s+\[[^\]]*\])*)$/.exec(line);
  if (!match) throw wrong(line);
  const [, name, action, rest = ""] = match;
  const conditions = [...rest.matchAll(condition)].map(([, index, value, operator, mask]): SyscallCondition => {
    if (!operators.includes(operator!) || (operator === "SCMP_CMP_MASKED_EQ") !== (mask !== undefined)) {
      throw wrong(line);
    }
    return {
      index: Number(index),
      value: Number(value),
      operator: operator!,
      ...(mask === undefined ? {} : { mask: Number(mask) }),
    };
  });
  if (rest.replace(condition, "").trim() !== "") throw wrong(line);
  return { name: name!, ...(action === undefined ? {} : { action: parseAction(action, line) }), conditions };
}

function parseAction(text: string, line: string): SyscallAction {
  const [kind, number] = text.split(/\s+/);
  if (kind !== "errno") return { kind: kind as "allow" | "kill" | "trap" };
  const errno = Number(number);
  if (errno > errnoMax) throw wrong(line);
  return { kind, errno };
}

function wrong(line: string): LidoError {
  return refused(
    `Invalid system call "${line}": a name, then "errno NUMBER", "kill", "trap" or "allow", then [INDEX,VALUE,OPERATOR] with an operator of ${
      operators.join(" ")
    } (the last with ,MASK), is allowed`,
  );
}

const refused = (text: string) => new LidoError("bad_request", text);

export interface SyscallPolicy {
  /** Only these calls are allowed; any other ends the thread. The other fields are ignored then. */
  readonly allow?: readonly SyscallRule[];
  readonly deny?: readonly SyscallRule[];
  /** Whether `defaultRules` are refused; default true. */
  readonly denyDefault?: boolean;
  /** Whether the calls of x32 are refused. */
  readonly denyCompat?: boolean;
}
