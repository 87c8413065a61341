/** The guest's half of tests/vm/bench.ts: runs lido and LXD in turn by their APIs, each on its own disk.
 *   bench_guest.ts lvm|zfs [ROUNDS] [CASE...] */
import { spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Requests } from "../crash/support.ts";
import { succeed } from "../support/command.ts";
import { executable, projectRoot } from "../support/daemon.ts";
import { withContent } from "../support/volume_content.ts";

const [driver = "lvm", rounds = "7", ...wanted] = process.argv.slice(2);

class Target extends Requests {
  readonly name: string;
  pid = 0;

  constructor(name: string) {
    super(`/scratch/${name}`);
    this.name = name;
  }

  async start(argv: readonly string[]): Promise<void> {
    mkdirSync(this.directory, { recursive: true });
    const log = openSync(`${this.directory}.log`, "a");
    const env = { ...process.env, LIDO_DIR: this.directory, LXD_DIR: this.directory };
    const child = spawn(argv[0]!, argv.slice(1), {
      env: { ...env, LXD_LXC_TEMPLATE_CONFIG: "/usr/share/lxc/config" },
      stdio: ["ignore", log, log],
    });
    this.pid = child.pid!;
    const client = this.name === "lido" ? executable : "lxd";
    await succeed([client, "waitready", "--timeout", "300"], { env, timeoutMs: 310_000 });
  }

  async furnish(device: string): Promise<void> {
    // Names of volume groups and ZFS pools are global on a host: each daemon has its own.
    const config = { source: device, [driver === "zfs" ? "zfs.pool_name" : "lvm.vg_name"]: `bench-${this.name}` };
    await this.ask("POST", "/storage-pools", { name: "p", driver, config });
    await this.ask("POST", "/images", readFileSync(join(projectRoot, "dist/busybox.tar.xz")), {
      "content-type": "application/octet-stream",
    });
    const [{ fingerprint }] = await this.ask("GET", "/images?recursion=1");
    await this.ask("POST", "/images/aliases", { name: "bb", target: fingerprint });
    await this.volume("big", { size: "1GiB" });
    const pool = await this.ask("GET", "/storage-pools/p");
    await withContent(this.directory, pool, { type: "custom", name: "default_big" }, async (path) => {
      await succeed(["dd", "if=/dev/urandom", `of=${path}/data`, "bs=1M", "count=256", "status=none"]);
    }, true);
    await this.volume("small");
    await succeed(["sync"]);
  }

  volume(name: string, config: object = {}, source: object = {}) {
    return this.ask("POST", "/storage-pools/p/volumes/custom", {
      name,
      type: "custom",
      content_type: "filesystem",
      config,
      source,
    });
  }

  delete(name: string) {
    return this.ask("DELETE", `/storage-pools/p/volumes/custom/${name}`);
  }

  instance(name: string) {
    const devices = { root: { type: "disk", path: "/", pool: "p" } };
    return this.ask("POST", "/instances", {
      name,
      type: "container",
      devices,
      source: { type: "image", alias: "bb" },
    });
  }
}

interface Case {
  readonly name: string;
  readonly before?: (target: Target) => Promise<unknown>;
  readonly run: (target: Target) => Promise<unknown>;
  readonly after?: (target: Target) => Promise<unknown>;
}

const cases: readonly Case[] = [
  { name: "volume create", run: (target) => target.volume("v"), after: (target) => target.delete("v") },
  { name: "volume delete", before: (target) => target.volume("v"), run: (target) => target.delete("v") },
  {
    name: "snapshot",
    run: (target) => target.ask("POST", "/storage-pools/p/volumes/custom/small/snapshots", { name: "s" }),
    after: (target) => target.ask("DELETE", "/storage-pools/p/volumes/custom/small/snapshots/s"),
  },
  {
    name: "copy of 256 MiB",
    run: (target) => target.volume("copy", {}, { type: "copy", pool: "p", name: "big" }),
    after: (target) => target.delete("copy"),
  },
  {
    name: "instance init",
    run: (target) => target.instance("c"),
    after: (target) => target.ask("DELETE", "/instances/c"),
  },
  {
    name: "instance delete",
    before: (target) => target.instance("c"),
    run: (target) => target.ask("DELETE", "/instances/c"),
  },
];

/** Milliseconds. */
async function timed(target: Target, { before, run, after }: Case): Promise<number> {
  await before?.(target);
  const started = performance.now();
  await run(target);
  const ms = performance.now() - started;
  await after?.(target);
  return ms;
}

/** Number of processes that the daemon starts for the case, counted by their calls of execve. */
async function processes(target: Target, one: Case): Promise<number> {
  const file = `/scratch/strace-${target.name}`;
  writeFileSync(file, "");
  await one.before?.(target);
  const tracer = spawn("strace", [
    "-f",
    "-qq",
    "-e",
    "trace=execve",
    "-e",
    "signal=none",
    "-o",
    file,
    "-p",
    String(target.pid),
  ], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  const ended = new Promise((resolve) => tracer.on("exit", resolve));
  // strace is attached when the kernel names it as the tracer.
  while (!/TracerPid:\s*[1-9]/.test(readFileSync(`/proc/${target.pid}/status`, "utf8"))) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await one.run(target);
  tracer.kill("SIGINT");
  await ended;
  await one.after?.(target);
  return readFileSync(file, "utf8").split("\n").filter((line) => /execve\(.*\) = 0/.test(line)).length;
}

const chosen = cases.filter(({ name }) => wanted.length === 0 || wanted.includes(name));
const unknown = wanted.filter((name) => !cases.some((one) => one.name === name));
if (unknown.length > 0) {
  console.error(`Error: Unknown case "${unknown[0]}": ${cases.map(({ name }) => name).join(", ")} are allowed`);
  process.exit(2);
}

const median = (values: number[]) => values.sort((left, right) => left - right)[Math.floor(values.length / 2)]!;

const lido = new Target("lido");
const lxd = new Target("lxd");
await lido.start([executable, "daemon"]);
await lxd.start(["lxd", "--logfile", "/scratch/lxd-own.log"]);
await lido.furnish(process.env.D2!);
await lxd.furnish(process.env.D3!);
console.log(`${driver}, medians of ${rounds} rounds in turn, in ms; processes started by the daemon`);
console.log(
  "".padEnd(18) + ["lido", "LXD", "lido/LXD", "processes", "LXD's"].map((head) => head.padStart(10)).join(""),
);
for (const one of chosen) {
  const found: [number[], number[]] = [[], []];
  for (let round = -1; round < Number(rounds); round++) {
    for (const [index, target] of [lido, lxd].entries()) {
      const ms = await timed(target, one);
      if (round >= 0) found[index]!.push(ms); // the first round is a warm-up
    }
  }
  const [ours, theirs] = found.map(median) as [number, number];
  const counts = [await processes(lido, one), await processes(lxd, one)];
  const cells = [ours.toFixed(0), theirs.toFixed(0), (ours / theirs).toFixed(2), ...counts.map(String)];
  console.log(one.name.padEnd(18) + cells.map((cell) => cell.padStart(10)).join(""));
}
process.exit(0); // the machine is discarded with all its processes
