import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";

/** A mount namespace with cgroup2 alone at /sys/fs/cgroup, as on a host without v1 hierarchies. A process keeps it alive, so that a daemon and the
 * one restarted after it see the same mounts. */
export class UnifiedHost implements AsyncDisposable {
  readonly #keeper;

  private constructor(keeper: ReturnType<typeof spawn>) {
    this.#keeper = keeper;
  }

  static async open(): Promise<UnifiedHost> {
    const script = "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo made && exec cat";
    const keeper = spawn("unshare", ["--mount", "sh", "-c", script], { stdio: ["pipe", "pipe", "inherit"] });
    const host = new UnifiedHost(keeper);
    const ended = once(keeper, "exit").then(([code]) => {
      throw new Error(`the namespace with cgroup2 alone could not be made (exit ${code})`);
    });
    ended.catch(() => {});
    await Promise.race([once(keeper.stdout!, "data"), ended]);
    return host;
  }

  /** Prefix of a command line that runs in the namespace. */
  get argv(): string[] {
    return ["nsenter", `--mount=/proc/${this.#keeper.pid}/ns/mnt`, "--"];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#keeper, "close");
    this.#keeper.stdin!.end();
    await gone;
  }
}

const hasV1 = readFileSync("/proc/mounts", "utf8").split("\n").some((line) => line.split(" ")[2] === "cgroup");

/** A test with cgroup2 alone, in addition to the same test on the host as it is. */
export function testUnified(name: string, body: (t: Deno.TestContext, host: UnifiedHost) => Promise<void>): void {
  Deno.test({
    name: `${name} where there is cgroup2 alone` +
      (hasV1 ? "" : ": this host has no other, so the test before was it"),
    ignore: !hasV1,
    fn: async (t) => {
      await using host = await UnifiedHost.open();
      await body(t, host);
    },
  });
}
