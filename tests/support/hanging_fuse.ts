/** A FUSE filesystem that never answers. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import process from "node:process";
import { command } from "./command.ts";
import { projectRoot } from "./daemon.ts";

export class HangingFuse implements AsyncDisposable {
  readonly #server: ChildProcess;
  readonly #path: string;

  private constructor(server: ChildProcess, path: string) {
    this.#server = server;
    this.#path = path;
  }

  /** @param path Mount point. @param pid Process in whose mount namespace to mount; the test's own when absent. @param subtype Such as "lxcfs". */
  static async mount(path: string, pid?: number, subtype?: string): Promise<HangingFuse> {
    const script = join(projectRoot, "tests/fixtures/hanging_fuse.py");
    const argv = [script, path, String(pid ?? "self"), ...(subtype === undefined ? [] : [subtype])];
    const server = spawn("python3", argv, { stdio: ["pipe", "pipe", "inherit"] });
    const [line] = await Promise.race([once(server.stdout!, "data"), once(server, "exit")]);
    if (String(line).trim() !== "mounted") throw new Error(`Cannot mount a FUSE filesystem at "${path}": ${line}`);
    return new HangingFuse(server, path);
  }

  /** Kills the server process: the mount stays, and every access fails with ENOTCONN. */
  async kill(): Promise<void> {
    const ended = once(this.#server, "exit");
    // Do not use the child's kill(): Deno then considers it ended at once.
    process.kill(this.#server.pid!, "SIGKILL");
    await ended;
  }

  /** Kills the server after some seconds, even when the test itself hangs in the filesystem. @returns Disposing stops the timer. */
  endAfter(seconds: number): Disposable {
    const end = 'sleep "$1" && kill -9 "$2"';
    const watchdog = spawn("sh", ["-c", end, "sh", String(seconds), String(this.#server.pid)], { detached: true });
    return { [Symbol.dispose]: () => process.kill(-watchdog.pid!, "SIGKILL") };
  }

  /** Ends the filesystem: waiting accesses get an error. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.signalCode !== null) return void await command(["umount", "-l", this.#path]);
    if (this.#server.exitCode !== null) return;
    const ended = once(this.#server, "exit");
    this.#server.stdin!.end();
    await ended;
  }
}
