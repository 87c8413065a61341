import { constants, statSync } from "node:fs";
import { join } from "node:path";
import { inDirectory, openBeneathFd, openRegular } from "../host/files/beneath.ts";
import { again, closeFd, readFd } from "../host/process/process.ts";
import type { CommandSpec } from "./runtime.ts";

/** Why the kernel did not execute a command: found from the file afterwards, for the message only. Filesystems that the container mounted are not
 * read: they may never answer. */

/** Runs a text file without "#!". @see execvp(3) */
export const shell = "/bin/sh";

/** An O_PATH descriptor of the container's root; undefined when the container changed its root to one that may not answer: its files are unknown. */
type Root = number | undefined;

export interface NotExecuted {
  /** As in a shell: 127 when a file is missing, 126 when it cannot be executed. */
  readonly exitCode: 126 | 127;
  readonly message: string;
  /** Path of a file that has no format of the kernel's and seems to be text: a script without "#!". */
  readonly script?: string;
}

/** Enough for the first line (the kernel's BINPRM_BUF_SIZE is 256) and the program headers of an ELF file. */
const headBytesMax = 4096;
/** How many interpreters may be scripts themselves. @see execve(2) */
const interpretersMax = 5;
const O_PATH = 0x200000;
const machines: Readonly<Record<number, string>> = {
  3: "i386",
  8: "MIPS",
  20: "PowerPC",
  21: "PowerPC 64",
  22: "S/390",
  40: "ARM",
  62: "x86_64",
  183: "aarch64",
  243: "RISC-V",
  258: "LoongArch",
};

/** @param root A path for a container that does not run. @param said crun's message: the kernel's reason in words. */
export function whyNotExecuted(root: Root | string, command: CommandSpec, said: string): NotExecuted {
  if (typeof root === "string") return inDirectory(root, (directory) => whyNotExecuted(directory, command, said));
  const file = findFile(root, command);
  const head = file === undefined ? undefined : readHead(root, file);
  const missing = head && missingInterpreter(root, command.cwd, file!, head);
  if (missing !== undefined && !/format error|denied/i.test(said)) {
    return { exitCode: 127, message: `Command not found: ${missing}` };
  }
  if (/No such file/i.test(said)) {
    return { exitCode: 127, message: "Command not found: its interpreter does not exist" };
  }
  const reason = said.split(": ").at(-1) || "the kernel refused it";
  if (!head || !/format error/i.test(said)) return { exitCode: 126, message: `Command not executable: ${reason}` };
  const elf = readElf(head);
  const machine = elf && `${machines[elf.machine] ?? `number ${elf.machine}`}, ${elf.bits}-bit`;
  const detail = elf
    ? `"${file}" is a program for another machine (${machine})`
    : `"${file}" is no program (${reason})`;
  const isText = !elf && !head.subarray(0, firstLineLength(head)).includes(0);
  return { exitCode: 126, message: `Command not executable: ${detail}`, ...(isText ? { script: file! } : {}) };
}

/** @returns An O_PATH descriptor of the file that crun will find, or undefined when there is none. */
export function openExecutable(root: Root, command: CommandSpec): number | undefined {
  const file = findFile(root, command);
  if (root === undefined || file === undefined) return undefined;
  try {
    return openBeneathFd(root, file, { flags: O_PATH, inRoot: true });
  } catch {
    return undefined; // deleted meanwhile, or on a filesystem that the container mounted
  }
}

/** Searches as crun does. @returns The file's path in the container. */
function findFile(root: Root, { argv, environment, cwd }: CommandSpec): string | undefined {
  const [name = ""] = argv;
  if (name.includes("/")) return name.startsWith("/") ? name : join(cwd, name);
  const candidates = (environment.PATH ?? "").split(":").map((directory) => join(directory || cwd, name));
  return candidates.find((path) => readHead(root, path) !== undefined);
}

/** @returns What is missing, in words; undefined when nothing is missing or it cannot be known. */
function missingInterpreter(root: Root, cwd: string, file: string, head: Uint8Array): string | undefined {
  let user = file, bytes: Uint8Array | undefined = head;
  for (let depth = 0; bytes && depth <= interpretersMax; depth++) {
    const name = scriptInterpreter(bytes) ?? readElf(bytes)?.interpreter;
    if (name === undefined) return undefined;
    const path = name.startsWith("/") ? name : join(cwd, name);
    if (!exists(root, path)) {
      const ending = name.endsWith("\r") ? " (its lines end with CR LF, not LF)" : "";
      return `the interpreter ${JSON.stringify(name)} of "${user}" does not exist${ending}`;
    }
    user = path;
    bytes = readHead(root, path);
  }
  return undefined;
}

/** Whether a file of a container that does not run yet is a script, as an init may be. @param root The container's root on the host. */
export function isScript(root: string, file: string): boolean {
  try {
    const head = inDirectory(root, (directory) => readHead(directory, file));
    return head !== undefined && scriptInterpreter(head) !== undefined;
  } catch {
    return false; // the execution will report the error
  }
}

function firstLineLength(head: Uint8Array): number {
  const end = head.subarray(0, 256).indexOf(10);
  return end < 0 ? Math.min(head.length, 256) : end;
}

/** @returns The interpreter after "#!". @see execve(2), "Interpreter scripts" */
function scriptInterpreter(head: Uint8Array): string | undefined {
  const line = new TextDecoder().decode(head.subarray(0, firstLineLength(head)));
  return /^#![ \t]*([^ \t\0]+)/.exec(line)?.[1];
}

/** @see elf(5): Elf64_Ehdr, Elf64_Phdr */
function readElf(head: Uint8Array): { bits: 32 | 64; machine: number; interpreter: string | undefined } | undefined {
  if (head.length < 52 || head[0] !== 0x7f || new TextDecoder().decode(head.subarray(1, 4)) !== "ELF") return undefined;
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const isLittle = head[5] === 1, bits = head[4] === 1 ? 32 : 64;
  return { bits, machine: view.getUint16(18, isLittle), interpreter: elfInterpreter(view, isLittle, bits) };
}

function elfInterpreter(view: DataView, isLittle: boolean, bits: 32 | 64): string | undefined {
  const PT_INTERP = 3;
  const word = (at: number) => bits === 32 ? view.getUint32(at, isLittle) : Number(view.getBigUint64(at, isLittle));
  try {
    const table = word(bits === 32 ? 28 : 32);
    const [size, count] = [0, 2].map((at) => view.getUint16((bits === 32 ? 42 : 54) + at, isLittle)) as [
      number,
      number,
    ];
    for (let entry = table; entry < table + size * count; entry += size) {
      if (view.getUint32(entry, isLittle) !== PT_INTERP) continue;
      const start = word(entry + (bits === 32 ? 4 : 8)), length = word(entry + (bits === 32 ? 16 : 32));
      const bytes = new Uint8Array(view.buffer, view.byteOffset + start, length);
      return new TextDecoder().decode(bytes).replace(/\0.*$/s, "");
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // beyond what was read
  }
  return undefined;
}

function exists(root: Root, path: string): boolean {
  if (root === undefined) return true;
  try {
    closeFd(openBeneathFd(root, path, { flags: O_PATH, inRoot: true }));
    return true;
  } catch (error) {
    return !["ENOENT", "ENOTDIR"].includes((error as { code?: string }).code ?? "");
  }
}

/** @returns The first bytes of an executable file, or undefined when there is none. */
function readHead(root: Root, path: string): Uint8Array | undefined {
  if (root === undefined) return undefined;
  let descriptor: number;
  try {
    descriptor = openBeneathFd(root, path, { flags: O_PATH, inRoot: true });
  } catch {
    return undefined;
  }
  try {
    const { mode } = statSync(`/proc/self/fd/${descriptor}`);
    if ((mode & constants.S_IFMT) !== constants.S_IFREG || (mode & 0o111) === 0) return undefined;
    const file = openRegular(descriptor, path, constants.O_RDONLY);
    try {
      const head = new Uint8Array(headBytesMax);
      const count = readFd(file, head);
      return count === again ? undefined : head.subarray(0, count);
    } finally {
      closeFd(file);
    }
  } finally {
    closeFd(descriptor);
  }
}
