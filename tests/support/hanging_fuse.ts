/** A FUSE filesystem that never answers. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { projectRoot } from "./daemon.ts";

export class HangingFuse implements AsyncDisposable {
  readonly #server: ChildProcess;

  private constructor(server: ChildProcess) {
    this.#server = server;
  }

  /** @param path Where it is mounted. @param pid Of a process in whose mount namespace; the test's own when absent. @param subtype As "lxcfs". */
  static async mount(path: string, pid?: number, subtype?: string): Promise<HangingFuse> {
    const script = join(projectRoot, "tests/fixtures/hanging_fuse.py");
    const argv = [script, path, String(pid ?? "self"), ...(subtype === undefined ? [] : [subtype])];
    const server = spawn("python3", argv, { stdio: ["pipe", "pipe", "inherit"] });
    const [line] = await Promise.race([once(server.stdout!, "data"), once(server, "exit")]);
    if (String(line).trim() !== "mounted") throw new Error(`Cannot mount a FUSE filesystem at "${path}": ${line}`);
    return new HangingFuse(server);
  }

  /** Ends it: whoever waits for it gets an error. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.exitCode !== null) return;
    const ended = once(this.#server, "exit");
    this.#server.stdin!.end();
    await ended;
  }
}
