import { LidoError } from "../../api/errors.ts";
import type { InstanceExecPost } from "../../api/types.ts";
import type { CommandSpec, Runtime } from "../../drivers/runtime/runtime.ts";
import type { ExecTarget } from "../instances/instances.ts";
import { findAccount } from "./accounts.ts";
import { isWindowSize } from "./control.ts";

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** The kernel's limit for one argument or variable. @see execve(2), MAX_ARG_STRLEN */
const wordBytesMax = 128 * 1024;

/** A running container's files. */
export type Files = Pick<Runtime, "readFile" | "fileExists">;

/** The command of a request, with LXD's defaults and the container's own accounts.
 * @throws {LidoError} bad_request for values that no command can be started with. */
export async function commandSpec(
  files: Files,
  target: ExecTarget,
  post: InstanceExecPost,
): Promise<CommandSpec> {
  checkSize(post);
  const { name } = target;
  const isLogin = post.login;
  const account = post["user-name"] !== "" || isLogin
    ? await findAccount((path) => files.readFile(name, path), post["user-name"] || String(post.user))
    : undefined;
  const argv = post.command.length === 0 && isLogin && account ? [account.shell, "-l"] : post.command;
  checkWords(argv);
  const uid = account?.uid ?? post.user;
  const environment = {
    PATH: await files.fileExists(name, "/snap") ? `${path}:/snap/bin` : path,
    LANG: "C.UTF-8",
    ...(uid === 0 ? { HOME: "/root", USER: "root" } : {}),
    ...(account ? { HOME: account.home, USER: account.name, LOGNAME: account.name, SHELL: account.shell } : {}),
    ...instanceEnvironment(target),
    ...post.environment,
  };
  checkEnvironment(environment);
  return {
    argv,
    environment,
    cwd: post.cwd === "" ? await home(files, name, environment) : checkCwd(post.cwd),
    uid,
    gid: post["group-set"] || !account ? post.group : account.gid,
    ...(account ? { groups: account.groups } : {}),
  };
}

function instanceEnvironment({ config }: ExecTarget): Record<string, string> {
  const prefix = "environment.";
  return Object.fromEntries(
    Object.entries(config).filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [
      key.slice(prefix.length),
      value,
    ]),
  );
}

/** A missing home is replaced by "/"; a requested directory that is missing makes the start fail. */
async function home(files: Files, name: string, environment: Record<string, string>): Promise<string> {
  const { HOME } = environment;
  return HOME?.startsWith("/") && await files.fileExists(name, HOME) ? HOME : "/";
}

function checkCwd(cwd: string): string {
  if (!cwd.startsWith("/") || cwd.includes("\0")) {
    throw new LidoError("bad_request", `Invalid working directory "${cwd}": an absolute path is allowed`);
  }
  return cwd;
}

function checkSize({ width, height }: InstanceExecPost): void {
  // Both are 0 when the client has no terminal.
  if (width === 0 && height === 0) return;
  if (!isWindowSize(width) || !isWindowSize(height)) {
    throw new LidoError("bad_request", `Invalid window size ${width}x${height}: from 1 to 65535 is allowed`);
  }
}

function checkWords(argv: readonly string[]): void {
  if (argv.length === 0) throw new LidoError("bad_request", "Invalid command: it is empty");
  for (const word of argv) {
    if (word.includes("\0")) throw new LidoError("bad_request", "Invalid command: an argument contains a NUL");
    if (Buffer.byteLength(word) >= wordBytesMax) {
      throw new LidoError("bad_request", `Invalid command: an argument has ${wordBytesMax} bytes or more`);
    }
  }
}

function checkEnvironment(environment: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(environment)) {
    if (name === "" || /[=\0]/.test(name)) {
      throw new LidoError(
        "bad_request",
        `Invalid environment variable ${JSON.stringify(name)}: no "=" or NUL is allowed`,
      );
    }
    if (value.includes("\0")) {
      throw new LidoError("bad_request", `Invalid value of environment variable "${name}": it contains a NUL`);
    }
    if (Buffer.byteLength(name) + Buffer.byteLength(value) + 2 > wordBytesMax) {
      throw new LidoError("bad_request", `Invalid value of environment variable "${name}": it is too long`);
    }
  }
}
