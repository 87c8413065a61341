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

  /** @param path Where it is mounted. @param pid Of a process in whose mount namespace; the test's own when absent. @param subtype As "lxcfs". */
  static async mount(path: string, pid?: number, subtype?: string): Promise<HangingFuse> {
    const script = join(projectRoot, "tests/fixtures/hanging_fuse.py");
    const argv = [script, path, String(pid ?? "self"), ...(subtype === undefined ? [] : [subtype])];
    const server = spawn("python3", argv, { stdio: ["pipe", "pipe", "inherit"] });
    const [line] = await Promise.race([once(server.stdout!, "data"), once(server, "exit")]);
    if (String(line).trim() !== "mounted") throw new Error(`Cannot mount a FUSE filesystem at "${path}": ${line}`);
    return new HangingFuse(server, path);
  }

  /** Kills its process: the mount stays, and whoever touches it is told that it is not connected. */
  async kill(): Promise<void> {
    const ended = once(this.#server, "exit");
    // Not by the child's own kill(): Deno then takes it for ended at once.
    process.kill(this.#server.pid!, "SIGKILL");
    await ended;
  }

  /** Ends it after some seconds, even when the test itself is held by it. @returns Ends the waiting. */
  endAfter(seconds: number): Disposable {
    const end = 'sleep "$1" && kill -9 "$2"';
    const watchdog = spawn("sh", ["-c", end, "sh", String(seconds), String(this.#server.pid)], { detached: true });
    return { [Symbol.dispose]: () => process.kill(-watchdog.pid!, "SIGKILL") };
  }

  /** Ends it: whoever waits for it gets an error. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.signalCode !== null) return void await command(["umount", "-l", this.#path]);
    if (this.#server.exitCode !== null) return;
    const ended = once(this.#server, "exit");
    this.#server.stdin!.end();
    await ended;
  }
}
