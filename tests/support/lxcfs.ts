import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { command } from "./command.ts";
import { slowness } from "./slowness.ts";

const binary = "/usr/bin/lxcfs";

/** An LXCFS for the test in its own directory; the host's own, if any, is not touched. */
export class TestLxcfs implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), "lido-lxcfs-"));
  #child: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  static readonly isInstalled = existsSync(binary) && existsSync("/dev/fuse");

  async start(): Promise<void> {
    const child = spawn(binary, ["-f", "-p", `${this.path}.pid`, this.path], { stdio: "ignore" });
    this.#child = child;
    this.#ended = new Promise((resolve) => child.on("exit", resolve));
    await until(() => Promise.resolve(existsSync(join(this.path, "proc/meminfo"))), "lxcfs serves");
  }

  /** Simulates a crash: the mount stays, and accesses fail. */
  async kill(): Promise<void> {
    process.kill(this.#child!.pid!, "SIGKILL");
    await this.#ended;
    this.#child = undefined;
  }

  /** As `umount -l`. */
  async unmount(): Promise<void> {
    await command(["umount", "-l", this.path]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child) await this.kill();
    await this.unmount();
    rmdirSync(this.path);
    await rm(`${this.path}.pid`, { force: true });
  }
}

/** Polls until `holds` returns true. @throws {Error} If it does not in time. */
export async function until(holds: () => Promise<boolean>, what: string, timeoutMs = 20_000): Promise<void> {
  const deadline = Date.now() + timeoutMs * slowness;
  while (!await holds()) {
    if (Date.now() > deadline) throw new Error(`Not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
