/** A FUSE filesystem that shows a directory and can be paused, like a network filesystem whose server is down. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import process from "node:process";
import { command } from "./command.ts";
import { projectRoot } from "./daemon.ts";

export class PausingFuse implements AsyncDisposable {
  readonly #server: ChildProcess;
  readonly #path: string;

  private constructor(server: ChildProcess, path: string) {
    this.#server = server;
    this.#path = path;
  }

  /** @param directory Directory to show. @param path Mount point. */
  static async mount(directory: string, path: string): Promise<PausingFuse> {
    const script = join(projectRoot, "tests/fixtures/pausing_fuse.py");
    const server = spawn("python3", [script, directory, path], { stdio: ["pipe", "pipe", "inherit"] });
    const fuse = new PausingFuse(server, path);
    await fuse.#told("mounted");
    return fuse;
  }

  async pause(): Promise<void> {
    this.#server.stdin!.write("\n");
    await this.#told("paused");
  }

  async resume(): Promise<void> {
    this.#server.stdin!.write("\n");
    await this.#told("answers");
  }

  /** Kills the server process: the mount stays, and every access fails with ENOTCONN. */
  async kill(): Promise<void> {
    const ended = once(this.#server, "exit");
    // Do not use the child's kill(): Deno then considers it ended at once.
    process.kill(this.#server.pid!, "SIGKILL");
    await ended;
  }

  async #told(what: string): Promise<void> {
    const [line] = await Promise.race([once(this.#server.stdout!, "data"), once(this.#server, "exit")]);
    if (String(line).trim() !== what) throw new Error(`The FUSE filesystem is not "${what}": ${line}`);
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
