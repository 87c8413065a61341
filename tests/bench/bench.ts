/** Benchmarks lido by its own client, lido by the real `lxc`, and every peer on this host; prints medians, and lido's ratio to each peer. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { command, succeed } from "../support/command.ts";
import { Daemon, executable } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { RawClient } from "../support/raw.ts";

interface Target {
  readonly name: string;
  readonly client: string;
  /** The daemon's directory, which holds its pools. */
  readonly directory: string;
  /** Command line that makes a snapshot of a volume: Incus has another one. */
  readonly snapshot: string;
  readonly environment: Record<string, string>;
  readonly pid: number;
}

interface Case {
  readonly name: string;
  readonly section: string;
  /** Shell command with $C for the client, $D for the daemon's directory, $SNAP for the snapshot command; `before` and `after` are not timed. */
  readonly run: string;
  readonly before?: string;
  /** Run before the first round and after the last one. */
  readonly first?: string;
  readonly last?: string;
  readonly after?: string;
  /** The same by a pipe on the host without a daemon: the best possible result. */
  readonly floor?: string;
  /** Bytes moved: the result is in MB/s, and more is better. */
  readonly bytes?: number;
  readonly rounds?: number;
}

const rounds = Number(process.env.N ?? 10);
const turnRounds = 5;
const mebibytes = Number(process.env.MIB ?? 1024);
const bytes = mebibytes * 1048576;

const perPool = (pool: string): Case[] => [
  {
    section: "volume",
    name: `volume create (${pool})`,
    run: `$C storage volume create p-${pool} v`,
    after: `$C storage volume delete p-${pool} v`,
  },
  {
    section: "volume",
    name: `volume delete (${pool})`,
    before: `$C storage volume create p-${pool} v`,
    run: `$C storage volume delete p-${pool} v`,
  },
  {
    section: "volume",
    name: `volume snapshot, empty (${pool})`,
    before: `$C storage volume create p-${pool} v`,
    run: `$SNAP p-${pool} v s`,
    after: `$C storage volume delete p-${pool} v`,
  },
  {
    section: "sharing",
    name: `attach and detach, running (${pool})`,
    before: `$C storage volume create p-${pool} shared`,
    run:
      `$C storage volume attach p-${pool} shared bench0 /mnt/shared && $C storage volume detach p-${pool} shared bench0`,
    after: `$C storage volume delete p-${pool} shared`,
  },
  {
    section: "instance",
    name: `init (${pool})`,
    run: `$C init bb bench1 -s p-${pool}`,
    after: "$C delete -f bench1",
  },
  {
    section: "instance",
    name: `start (${pool})`,
    before: `$C init bb bench1 -s p-${pool}`,
    run: "$C start bench1",
    after: "$C delete -f bench1",
  },
  {
    section: "instance",
    name: `stop -f (${pool})`,
    before: `$C launch bb bench1 -s p-${pool}`,
    run: "$C stop -f bench1",
    after: "$C delete -f bench1",
  },
  {
    section: "instance",
    name: `delete (${pool})`,
    before: `$C init bb bench1 -s p-${pool}`,
    run: "$C delete bench1",
  },
];

/** Copies of a volume with 1 GiB of random bytes; on "xfs" the pool is a directory of a filesystem that shares blocks. */
const copies = (pool: string): Case[] => [
  {
    section: "copy",
    name: `volume copy, 1 GiB (${pool})`,
    first:
      `$C storage volume create p-${pool} big && head -c 1G /dev/urandom >$D/storage-pools/p-${pool}/custom/default_big/data`,
    before: "sync",
    run: `$C storage volume copy p-${pool}/big p-${pool}/copy`,
    after: `$C storage volume delete p-${pool} copy`,
    last: `$C storage volume delete p-${pool} big`,
    rounds: 5,
  },
  {
    section: "copy",
    name: `volume snapshot, 1 GiB (${pool})`,
    first:
      `$C storage volume create p-${pool} big && head -c 1G /dev/urandom >$D/storage-pools/p-${pool}/custom/default_big/data`,
    before: "sync",
    run: `$SNAP p-${pool} big s`,
    after: `$C storage volume delete p-${pool} big/s || $C storage volume snapshot delete p-${pool} big s`,
    last: `$C storage volume delete p-${pool} big`,
    rounds: 5,
  },
];

const lists = (pool: string): Case => ({
  section: "list",
  name: `volume list, 500 volumes (${pool})`,
  first: `for k in $(seq 500); do $C storage volume create p-${pool} lv$k; done`,
  run: `$C storage volume list p-${pool}`,
  last: `for k in $(seq 500); do $C storage volume delete p-${pool} lv$k; done`,
});

const cases: readonly Case[] = [
  { section: "client", name: "version", run: "$C version" },
  { section: "client", name: "list", run: "$C list" },
  { section: "client", name: "storage list", run: "$C storage list" },
  { section: "exec", name: "exec -- true", run: "$C exec bench0 -- true", rounds: 3 * rounds },
  { section: "exec", name: "exec -- true on a pty", run: "script -qec '$C exec bench0 -- true' /dev/null" },
  {
    section: "exec",
    name: "20 exec at once",
    run: "for k in $(seq 20); do timeout -s KILL 20 $C exec bench0 -- true & done; wait",
  },
  {
    section: "exec",
    name: "exec with a background holder",
    run: "timeout -s KILL 20 $C exec bench0 -- sh -c 'sleep 3 &'",
    rounds: 3,
  },
  ...perPool("dir"),
  ...perPool("btrfs"),
  ...copies("dir"),
  ...copies("xfs"),
  ...copies("btrfs"),
  lists("dir"),
  lists("btrfs"),
  {
    section: "throughput",
    name: "exec, container to client, by MiB",
    run: `$C exec bench0 -- dd if=/dev/zero bs=1M count=${mebibytes} </dev/null 2>/dev/null | cat >/dev/null`,
    floor: `busybox dd if=/dev/zero bs=1M count=${mebibytes} 2>/dev/null | cat >/dev/null`,
    bytes,
    rounds: 5,
  },
  {
    section: "throughput",
    name: "exec, container to client, by 4 KiB",
    run: `$C exec bench0 -- head -c ${bytes} /dev/zero </dev/null | cat >/dev/null`,
    floor: `busybox head -c ${bytes} /dev/zero | cat >/dev/null`,
    bytes,
    rounds: 3,
  },
  {
    section: "throughput",
    name: "exec, client to container",
    run: `head -c ${bytes} /dev/zero | $C exec bench0 -- sh -c 'cat >/dev/null'`,
    floor: `head -c ${bytes} /dev/zero | busybox cat >/dev/null`,
    bytes,
    rounds: 5,
  },
];

/** Starts a line without quotes, pipes and the like directly, so as not to measure the start of a shell. */
function shell(target: Target, text: string): Promise<number> {
  const line = text.replaceAll("$C", target.client).replaceAll("$D", target.directory)
    .replaceAll("$SNAP", target.snapshot.replace("$C", target.client));
  const argv = /^[\w ./-]+$/.test(line) ? line.split(" ") : ["bash", "-c", line];
  const child = spawn(argv[0]!, argv.slice(1), {
    env: { ...process.env, ...target.environment },
    stdio: ["ignore", "ignore", "ignore"],
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => resolve(code ?? 255));
  });
}

/** Targets take turns of a few rounds, so that other load of the machine affects all of them. Within a turn the commands run one after the other, as
 * in a script. (After a pause, the first move of a process between cgroups waits 5 ms or more for the kernel, whichever program does it.)
 * @returns Medians in ms or MB/s; undefined for a target that failed. */
async function measure(targets: readonly Target[], one: Case): Promise<(number | undefined)[]> {
  const values: (number[] | undefined)[] = targets.map(() => []);
  const daemons = targets.filter(({ pid }, index) => targets.findIndex((other) => other.pid === pid) === index);
  for (const target of daemons) if (one.first) await shell(target, one.first);
  const count = one.rounds ?? rounds;
  for (let done = 0; done < count; done += turnRounds) {
    for (const [index, target] of targets.entries()) {
      for (let round = -1; round < Math.min(turnRounds, count - done) && values[index]; round++) {
        if (one.before) await shell(target, one.before);
        const started = performance.now();
        const code = await shell(target, one.run);
        const ms = performance.now() - started;
        if (one.after) await shell(target, one.after);
        if (code !== 0) values[index] = undefined;
        else if (round >= 0) values[index]?.push(one.bytes ? one.bytes / 1e3 / ms : ms); // the first round is a warm-up
      }
    }
  }
  for (const target of daemons) if (one.last) await shell(target, one.last);
  return values.map((all) => all?.sort((left, right) => left - right)[Math.floor(all.length / 2)]);
}

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024;
}

const lxdSnapshot = "$C storage volume snapshot";

/** Makes a filesystem that shares blocks on a loop file, and a pool in it for each daemon. */
async function reflinkPools(targets: readonly Target[], undo: AsyncDisposableStack): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), "lido-bench-"));
  undo.defer(() => rmSync(work, { recursive: true }));
  const [file, mount] = [join(work, "xfs.img"), join(work, "xfs")];
  await succeed(["truncate", "--size=12G", file]);
  await succeed(["mkfs.xfs", "-q", "-m", "reflink=1", file]);
  mkdirSync(mount);
  await succeed(["mount", "-o", "loop", file, mount]);
  undo.defer(async () => void await succeed(["umount", mount]));
  for (const target of targets) {
    const source = join(mount, target.name);
    mkdirSync(source);
    await shell(target, `$C storage create p-xfs dir source=${source}`);
    undo.defer(async () => void await shell(target, "$C storage delete p-xfs"));
  }
}

async function peers(): Promise<Target[]> {
  const found: Target[] = [];
  for (const [name, client] of [["LXD", "lxc"], ["INCUS", "incus"]] as const) {
    const directory = process.env[`${name}_PEER_DIR`];
    if (!directory) continue;
    const environment = { [`${name}_DIR`]: directory };
    const version = await command([client, "query", "/1.0"], { env: environment });
    if (version.code !== 0) throw new Error(`There is no ${name} in ${directory}: ${version.err}`);
    const pid = JSON.parse(version.out).environment.server_pid as number;
    const snapshot = name === "INCUS" ? "$C storage volume snapshot create" : lxdSnapshot;
    found.push({ name: name.toLowerCase(), client, environment, pid, directory, snapshot });
  }
  return found;
}

/** Measures what idle sessions cost. */
async function idle(daemon: Daemon): Promise<void> {
  const count = 200;
  const raw = new RawClient(daemon.directory);
  const before = residentMiB(daemon.pid);
  const execs = await Promise.all(Array.from({ length: count }, () => raw.exec("bench0", ["sleep", "1000"])));
  const sockets = await Promise.all(execs.map((exec) => raw.sockets(exec)));
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  const ticks = cpuTicks(daemon.pid);
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  const used = (cpuTicks(daemon.pid) - ticks) * 10;
  const more = residentMiB(daemon.pid) - before;
  console.log(`${count} sessions open and idle: ${more.toFixed(1)} MiB more, ${used} ms of CPU in 10 s`);
  for (const own of sockets) for (const socket of Object.values(own)) socket.terminate();
  await Promise.all(execs.map(({ id }) => raw.wait(id)));
}

/** User and system time, in ticks of 10 ms. @see proc_pid_stat(5) */
function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

const sections = process.argv.slice(2);
const chosen = cases.filter(({ section }) => sections.length === 0 || sections.includes(section));
if (chosen.length === 0 && !sections.includes("idle")) {
  console.error(`Error: Unknown section "${sections[0]}": ${[...new Set(cases.map((one) => one.section))].join(", ")}`);
  process.exit(1);
}
{
  const others = await peers();
  await using daemon = await Daemon.start();
  const started = residentMiB(daemon.pid);
  await daemon.ok("storage", "create", "p-btrfs", "btrfs", "size=4GiB");
  await daemon.ok("storage", "create", "p-dir", "dir");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=p-dir");
  await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
  const environment = { ...daemon.environment, HOME: daemon.directory };
  const own = { environment, pid: daemon.pid, directory: daemon.directory, snapshot: lxdSnapshot };
  const targets: Target[] = [
    { ...own, name: "lido", client: executable },
    { ...own, name: "lxc on lido", client: "lxc" },
    ...others,
  ];
  for (const target of [targets[0]!, ...others]) {
    await shell(target, "$C delete -f bench0");
    await shell(target, "$C launch bb bench0 -s p-dir");
  }
  await using undo = new AsyncDisposableStack();
  if (chosen.some(({ section }) => section === "copy")) await reflinkPools([targets[0]!, ...others], undo);
  const width = 34;
  const heads = [...targets.map(({ name }) => name), ...others.map(({ name }) => `lido/${name}`)];
  console.log("".padEnd(width) + heads.map((head) => head.padStart(13)).join(""));
  const row = (name: string, values: readonly (number | undefined)[], unit: string) => {
    const ratios = others.map((peer) => (values[0] ?? NaN) / (values[targets.indexOf(peer)] ?? NaN));
    const cells = [
      ...values.map((value) => value?.toFixed(1) ?? "failed"),
      ...ratios.map((ratio) => Number.isNaN(ratio) ? "" : ratio.toFixed(2)),
    ];
    console.log(name.padEnd(width) + cells.map((cell) => cell.padStart(13)).join("") + `  ${unit}`);
  };
  for (const one of chosen) {
    row(one.name, await measure(targets, one), one.bytes ? "MB/s, more is better" : "ms");
    if (one.floor === undefined) continue;
    const [floor] = await measure([targets[0]!], { ...one, run: one.floor });
    console.log(`  a pipe on the host`.padEnd(width) + floor!.toFixed(1).padStart(13));
  }
  if (sections.length === 0 || sections.includes("idle")) await idle(daemon);
  row("daemon's memory", targets.map(({ pid }) => residentMiB(pid)), "MiB");
  console.log(
    `\nlido's daemon had ${
      started.toFixed(1)
    } MiB at its start. Medians of ${rounds} rounds, 3 times as many for exec.`,
  );
  for (const target of others) await shell(target, "$C delete -f bench0");
  await succeed([executable, "delete", "-f", "bench0"], { env: daemon.environment });
}
