/** Costs of id maps: changes of owners, starts with another map, reads and writes through an idmapped mount.
 *   Environment: FILES (200000), ROUNDS (3), FIO_MIB (1024) */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { command, succeed } from "../support/command.ts";
import { Daemon } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";

const files = Number(process.env.FILES ?? 200_000);
const rounds = Number(process.env.ROUNDS ?? 3);
const mebibytes = Number(process.env.FIO_MIB ?? 1024);
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
const say = (what: string, text: string) => console.log(what.padEnd(60) + text.padStart(20));

function fill(root: string): void {
  for (let directory = 0; directory < files / 200; directory++) {
    const path = join(root, `d${directory % 20}/e${directory}`);
    mkdirSync(path, { recursive: true });
    for (let file = 0; file < 200; file++) writeFileSync(join(path, `file${file}`), "");
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

async function owners(daemon: Daemon, pool: string): Promise<void> {
  for (const name of ["full", "empty"]) await daemon.ok("storage", "volume", "create", pool, name);
  fill(join(daemon.directory, "storage-pools", pool, "custom/default_full"));
  const attach = async (volume: string, instance: string) => {
    const ms = await timed(() => daemon.ok("storage", "volume", "attach", pool, volume, instance, "/mnt/x"));
    await daemon.ok("storage", "volume", "detach", pool, volume, instance);
    return ms;
  };
  const rates: number[] = [];
  for (let round = 0; round < 2 * rounds; round++) {
    const instance = ["c1", "c2"][round % 2]!;
    const empty = await attach("empty", instance);
    rates.push(files / ((await attach("full", instance) - empty) / 1000));
  }
  say(`change of owners on disk, ${files} files (${pool})`, `${Math.round(median(rates))} files/s`);
  say("  the best round", `${Math.round(Math.max(...rates))} files/s`);
  for (const name of ["full", "empty"]) await daemon.ok("storage", "volume", "delete", pool, name);
}

async function starts(daemon: Daemon, pool: string): Promise<void> {
  await daemon.ok("init", "bb", "big", "-s", pool);
  fill(join(daemon.directory, "storage-pools", pool, "containers/big/rootfs/srv"));
  const times: Record<string, number[]> = { unchanged: [], changed: [] };
  for (let round = -1; round < 4 * rounds; round++) {
    const isChanged = round % 2 === 0;
    // Change a key in both cases, so that both starts have the same data to flush.
    await daemon.ok(
      "config",
      "set",
      "big",
      isChanged ? `security.idmap.isolated=${round % 4 === 0}` : `user.x=${round}`,
    );
    const ms = await timed(() => daemon.ok("start", "big"));
    if (round >= 0) times[isChanged ? "changed" : "unchanged"]!.push(ms);
    await daemon.ok("stop", "-f", "big");
  }
  for (const [what, all] of Object.entries(times)) {
    say(`start with ${files} files, map ${what} (${pool})`, `${median(all).toFixed(0)} ms`);
  }
  await daemon.ok("delete", "big");
}

/** Runs Debian's fio in the container, from the host's /usr. */
async function throughput(daemon: Daemon, pool: string): Promise<void> {
  await daemon.ok("storage", "volume", "create", pool, "io", "security.shifted=true");
  await daemon.ok("storage", "volume", "attach", pool, "io", "c1", "/srv/io");
  await daemon.ok("config", "device", "add", "c1", "usr", "disk", "source=/usr", "path=/mnt/usr", "readonly=true");
  const words = (
    directory: string,
    kind: string,
  ) => [
    `--name=t`,
    `--directory=${directory}`,
    `--rw=${kind}`,
    "--bs=128k",
    `--size=${mebibytes}M`,
    "--output-format=json",
    "--end_fsync=1",
  ];
  const bandwidth = (text: string, kind: string) =>
    JSON.parse(text.slice(text.indexOf("{"))).jobs[0][kind].bw_bytes / 1e6;
  const loader = (await succeed(["sh", "-c", "readlink -f $(ldd /usr/bin/fio | awk '/ld-linux/{print $1}')"])).replace(
    /^\/usr/,
    "/mnt/usr",
  );
  const linked = (await succeed(["ldd", "/usr/bin/fio"])).matchAll(/=> (?:\/usr)?(\/\S+)\/[^/\s]+ /g);
  const libraries = [...new Set([...linked].map(([, directory]) => `/mnt/usr${directory}`))].join(":");
  const raw = join(daemon.directory, "storage-pools", pool, "custom/default_io");
  for (const kind of ["write", "read"]) {
    const found: Record<string, number[]> = { inside: [], raw: [] };
    const isRead = kind === "read";
    // Both read one cached file: the test measures the path to it, not the disk or writeback.
    if (isRead) await succeed(["fio", ...words(raw, "write")]);
    const extra = isRead ? ["--readonly", "--invalidate=0"] : [];
    const clear = async () => void (isRead || await succeed(["rm", "-f", join(raw, "t.0.0")]));
    for (let round = 0; round < 2 * rounds; round++) {
      const inside = [loader, "--library-path", libraries, "/mnt/usr/bin/fio", ...words("/srv/io", kind), ...extra];
      found.inside!.push(bandwidth(await daemon.ok("exec", "c1", "--", ...inside), kind));
      await clear();
      found.raw!.push(bandwidth(await succeed(["fio", ...words(raw, kind), ...extra]), kind));
      await clear();
    }
    const [inside, outside] = [median(found.inside!), median(found.raw!)];
    say(`fio ${kind} in a shifted volume, MB/s (${pool})`, inside.toFixed(0));
    say("  the raw filesystem; ratio", `${outside.toFixed(0)}; ${(inside / outside).toFixed(2)}`);
  }
  await daemon.ok("config", "device", "remove", "c1", "usr");
  await daemon.ok("storage", "volume", "detach", pool, "io", "c1");
  await daemon.ok("storage", "volume", "delete", pool, "io");
}

await using daemon = await Daemon.start();
await daemon.ok("storage", "create", "p-dir", "dir");
await daemon.ok("storage", "create", "p-btrfs", "btrfs", "size=6GiB");
await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=p-dir");
await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
await daemon.ok("launch", "bb", "c1");
await daemon.ok("launch", "bb", "c2", "-c", "security.idmap.isolated=true");
const hasFio = (await command(["fio", "--version"]).catch(() => ({ code: 127 }))).code === 0;
for (const pool of ["p-dir", "p-btrfs"]) {
  await owners(daemon, pool);
  await starts(daemon, pool);
  if (hasFio) await throughput(daemon, pool);
}
if (!hasFio) say("fio is not installed: apt-get install fio", "");
