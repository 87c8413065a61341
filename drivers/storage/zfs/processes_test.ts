/** Which processes each operation starts, and how many. A process costs milliseconds; the test shows when one is added. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Answer, FakeHost } from "../../host/fake.ts";
import type { Pool, Volume } from "../driver.ts";
import { ZfsDriver } from "./driver.ts";
import { openPool } from "./pool.ts";
import { ZfsTool } from "./tool.ts";

interface World {
  readonly host: FakeHost;
  readonly driver: ZfsDriver;
  readonly pool: Pool;
  /** The command lines since the last call, abbreviated to their distinctive words. */
  ran(): string[];
}

const volume: Volume = { type: "custom", name: "default_v" };
const other: Volume = { type: "custom", name: "default_w" };
const s0: Volume = { ...volume, snapshot: "s0" };
const missing: Answer = { code: 1, stderr: "cannot open 'x': dataset does not exist" };

/** @param datasets Output of `zfs list`: `name<TAB>origin<TAB>clones` lines. @param failures Beginning of a command → its answer. */
async function withDriver(
  options: { config?: Record<string, string>; datasets?: string; failures?: Record<string, Answer> },
  test: (world: World) => Promise<void>,
): Promise<void> {
  const base = await mkdtemp(join(tmpdir(), "lido-zfs-"));
  try {
    const root = join(base, "storage-pools/p");
    await mkdir(root, { recursive: true });
    const diskFile = join(base, "p.img");
    const pool: Pool = { name: "p", config: { source: diskFile, ...options.config }, root, diskFile };
    const answer = (argv: readonly string[]): Answer => {
      const line = argv.join(" ");
      const failure = Object.entries(options.failures ?? {}).find(([start]) => line.startsWith(start));
      if (failure) return failure[1];
      if (!line.startsWith("zfs list")) return undefined;
      const found = (options.datasets ?? "").split("\n").filter((row) => row.split("\t")[0]!.startsWith(argv.at(-1)!));
      if (found.length === 0) return missing;
      return found.map((row) => argv.includes("name") ? row.split("\t")[0] : row).join("\n");
    };
    const host = new FakeHost(answer);
    const driver = new ZfsDriver(host, pool, new ZfsTool(host), { idmappedMounts: true });
    const ran = () =>
      host.processes.splice(0).map((argv) =>
        argv.join(" ").replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "UUID").replaceAll(base, "BASE")
      );
    await test({ host, driver, pool, ran });
  } finally {
    await rm(base, { recursive: true });
  }
}

Deno.test("a volume is made by two processes: one looks whether it is there, as the server does first", async () => {
  const config = { "zfs.blocksize": "16KiB", "zfs.use_refquota": "true", "zfs.reserve_space": "true" };
  await withDriver({}, async ({ host, driver, pool, ran }) => {
    assert.equal(await driver.exists(volume), false);
    await driver.create({ ...volume, config }, { sizeBytes: 1n << 30n });
    assert.deepEqual(ran(), [
      "zfs list -H -o name p/custom/default_v",
      "zfs create -o recordsize=16384 -o refquota=1073741824 -o refreservation=1073741824 p/custom/default_v",
    ]);
    // Mounted by mount(2), without a helper, to set its owner and mode; and left unmounted.
    const path = join(pool.root, "custom/default_v");
    assert.deepEqual(host.seen.slice(-2), [`mount(2) p/custom/default_v ${path}`, `umount(2) ${path}`]);
  });
});

Deno.test("mounting and unmounting start no process", async () => {
  await withDriver({}, async ({ driver, ran }) => {
    for (const one of [volume, s0]) {
      await driver.mount(one);
      await driver.unmount(one);
    }
    assert.deepEqual(ran(), []);
  });
});

Deno.test("a volume with its snapshots is deleted by two processes, however many there are", async () => {
  const snapshots = Array.from({ length: 500 }, (_, index) => `p/custom/default_v@snapshot-s${index}\t-\t-`);
  const datasets = ["p/custom/default_v\t-\t-", ...snapshots].join("\n");
  await withDriver({ datasets }, async ({ driver, ran }) => {
    await driver.delete(volume);
    assert.deepEqual(ran(), [
      "zfs list -Hp -t filesystem,volume,snapshot -r -o name,origin,clones p/custom/default_v",
      "zfs destroy -r p/custom/default_v",
    ]);
  });
});

Deno.test("a volume that others were cloned from is kept, also by two", async () => {
  const datasets = "p/custom/default_v\t-\t-\np/custom/default_v@snapshot-s0\t-\tp/custom/default_w";
  await withDriver({ datasets }, async ({ driver, ran }) => {
    await driver.delete(volume);
    assert.deepEqual(ran().slice(1), ["zfs rename p/custom/default_v p/deleted/custom/UUID"]);
  });
});

Deno.test("volumes that are deleted at once go one after the other: each sees what the other has left", async () => {
  const datasets = "p/custom/default_v\t-\t-\np/custom/default_w\tp/custom/default_v@copy-1\t-";
  const failures = { "zfs destroy -r p/custom/default_v": { code: 1, stderr: "filesystem has dependent clones" } };
  await withDriver({ datasets, failures }, async ({ driver, ran }) => {
    await Promise.all([driver.delete(volume), driver.delete(other)]);
    const first = [
      "zfs list p/custom/default_v",
      "zfs destroy -r p/custom/default_v",
      "zfs rename p/custom/default_v p/deleted/custom/UUID",
    ];
    const second = [
      "zfs list p/custom/default_w",
      "zfs destroy -r p/custom/default_w",
      "zfs destroy p/custom/default_v@copy-1",
    ];
    const lines = ran().map((line) => line.replace(/ -Hp .*clones/, ""));
    // The order of the two is not determined.
    assert.deepEqual(lines, lines[0] === first[0] ? [...first, ...second] : [...second, ...first]);
  });
});

Deno.test("with the last clone goes what was kept for it, over all generations", async () => {
  const [first, second] = ["0b0e1b3c-1111-4222-8333-444455556666", "1b0e1b3c-1111-4222-8333-444455556666"];
  const datasets = [
    `p/custom/default_w\tp/deleted/custom/${second}@copy-${second}\t-`,
    `p/deleted/custom/${first}\t-\t-`,
    `p/deleted/custom/${first}@snapshot-s0\t-\t-`,
    `p/deleted/custom/${second}\tp/deleted/custom/${first}@snapshot-s0\t-`,
    `p/deleted/custom/${second}@copy-${second}\t-\t-`,
  ].join("\n");
  await withDriver({ datasets }, async ({ driver, ran }) => {
    await driver.delete(other);
    assert.deepEqual(ran().filter((line) => line.startsWith("zfs destroy")), [
      "zfs destroy -r p/custom/default_w",
      "zfs destroy -r p/deleted/custom/UUID",
      "zfs destroy -r p/deleted/custom/UUID",
    ]);
  });
});

Deno.test("snapshots: one process to make, delete, rename and list; two to restore and look what that would lose", async () => {
  const datasets = "p/custom/default_v\t-\t-\np/custom/default_v@snapshot-s0\t-\t-";
  await withDriver({ datasets }, async ({ driver, ran }) => {
    const facet = driver.facets.snapshot!;
    await facet.create(s0);
    await facet.rename(s0, "s1");
    assert.deepEqual(await facet.list(volume), ["s0"]);
    await facet.delete(s0);
    assert.deepEqual(ran(), [
      "zfs snapshot p/custom/default_v@snapshot-s0",
      "zfs rename p/custom/default_v@snapshot-s0 p/custom/default_v@snapshot-s1",
      "zfs list -Hp -t filesystem,volume,snapshot -d 1 -o name p/custom/default_v",
      "zfs destroy p/custom/default_v@snapshot-s0",
    ]);
    assert.deepEqual(await facet.lostBy!(s0), []);
    await facet.restore(s0, []);
    assert.deepEqual(ran().slice(1), ["zfs rollback p/custom/default_v@snapshot-s0"]);
  });
});

Deno.test("a clone of an image is one process, a copy of a volume two", async () => {
  await withDriver({}, async ({ driver, ran }) => {
    const { clone } = driver.facets;
    const container: Volume = { type: "container", name: "c1" };
    await clone!.clone({ type: "image", name: "ab12" }, container, { sizeBytes: 1n << 30n });
    assert.deepEqual(ran(), ["zfs clone -o quota=1073741824 p/images/ab12@readonly p/containers/c1"]);
    await clone!.clone(volume, other);
    assert.deepEqual(ran(), [
      "zfs snapshot p/custom/default_v@copy-UUID",
      "zfs clone p/custom/default_v@copy-UUID p/custom/default_w",
    ]);
    await clone!.clone(s0, other);
    assert.deepEqual(ran(), ["zfs clone p/custom/default_v@snapshot-s0 p/custom/default_w"]);
  });
});

Deno.test("the snapshot of a copy that fails does not stay", async () => {
  const failures = { "zfs clone": { code: 1, stderr: "cannot create 'p/custom/default_w': out of space" } };
  await withDriver({ failures }, async ({ driver, ran }) => {
    await assert.rejects(driver.facets.clone!.clone(volume, other), /out of space/);
    assert.equal(ran().at(-1), "zfs destroy p/custom/default_v@copy-UUID");
  });
});

Deno.test("what a chain of snapshots sends is what was written between them", async () => {
  const failures = {
    "zfs get -Hp -o value written p/custom/default_v@snapshot-s0": "8192\n",
    "zfs get -Hp -o value written p/custom/default_v": "4096\n",
  };
  await withDriver({ failures }, async ({ driver }) => {
    const { send } = driver.facets;
    assert.deepEqual([await send!.writtenBytes!(s0), await send!.writtenBytes!(volume)], [8192n, 4096n]);
  });
});

Deno.test("rename, size, usage and health are one process each", async () => {
  const failures = {
    "zfs get -Hp -o value quota,refquota": "1073741824\n0\n",
    "zfs get -Hp -o value used": "4096\n",
    "zpool status": "  pool: p\n state: ONLINE\n\nerrors: No known data errors\n",
  };
  await withDriver({ failures }, async ({ driver, ran }) => {
    await driver.rename(volume, "default_w");
    await driver.facets.quota!.set(volume, undefined);
    assert.equal(await driver.facets.quota!.get(volume), 1n << 30n);
    assert.equal(await driver.facets.quota!.usedBytes(volume), 4096n);
    assert.deepEqual(await driver.facets.health!.check(), {
      ok: true,
      text: "ONLINE; never scrubbed; No known data errors",
    });
    assert.deepEqual(ran(), [
      "zfs rename p/custom/default_v p/custom/default_w",
      "zfs set quota=none refquota=none reservation=none refreservation=none p/custom/default_v",
      "zfs get -Hp -o value quota,refquota p/custom/default_v",
      "zfs get -Hp -o value used p/custom/default_v",
      "zpool status p",
    ]);
  });
});

Deno.test("a pool that is imported is opened by two processes, whatever is in it", async () => {
  const initial = ["", "/containers", "/custom", "/images", "/virtual-machines", "/deleted"];
  const deleted = ["containers", "custom", "images", "virtual-machines"].map((one) => `/deleted/${one}`);
  const volumes = Array.from({ length: 1000 }, (_, index) => `/custom/default_v${index}`);
  const datasets = [...initial, ...deleted, ...volumes].map((name) => `p${name}\t-\t-`).join("\n");
  await withDriver({ datasets }, async ({ pool, ran }) => {
    const host = new FakeHost((argv) => {
      if (argv[1] === "list") return datasets;
      return argv[1] === "get" ? `zpool ${pool.root}\tlocal\n` : undefined;
    });
    await openPool(host, pool);
    assert.deepEqual(host.processes.map((argv) => argv.slice(0, 2).join(" ")), ["zfs get", "zfs list"]);
    assert.deepEqual(ran(), []);
  });
});
