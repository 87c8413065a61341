/** A FUSE filesystem that shows a directory and can be paused, as a network filesystem whose server is away. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { projectRoot } from "./daemon.ts";

export class PausingFuse implements AsyncDisposable {
  readonly #server: ChildProcess;

  private constructor(server: ChildProcess) {
    this.#server = server;
  }

  /** @param directory What it shows. @param path Where it is mounted. */
  static async mount(directory: string, path: string): Promise<PausingFuse> {
    const script = join(projectRoot, "tests/fixtures/pausing_fuse.py");
    const server = spawn("python3", [script, directory, path], { stdio: ["pipe", "pipe", "inherit"] });
    const fuse = new PausingFuse(server);
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

  async #told(what: string): Promise<void> {
    const [line] = await Promise.race([once(this.#server.stdout!, "data"), once(this.#server, "exit")]);
    if (String(line).trim() !== what) throw new Error(`The FUSE filesystem is not "${what}": ${line}`);
  }

  /** Ends it: whoever waits for it gets an error. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.exitCode !== null) return;
    const ended = once(this.#server, "exit");
    this.#server.stdin!.end();
    await ended;
  }
}
