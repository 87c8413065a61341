import { existsSync } from "node:fs";
import { access, lstat, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { instancesPostSchema } from "../../api/types.ts";
import type { Driver, Volume } from "../../drivers/storage/driver.ts";
import { Events } from "../../server/events/events.ts";
import { Instances } from "../../server/instances/instances.ts";
import type { InstanceServices } from "../../server/instances/services.ts";
import { Journal } from "../../server/journal/journal.ts";
import { type Operation, Operations } from "../../server/operations/operations.ts";
import { MountedVolumes } from "../../server/pools/mounted.ts";
import { deleteVolumeRow, insertVolume } from "../../server/store/rows.ts";
import { Locks } from "../../server/store/locks.ts";
import { Database } from "../../server/state/database.ts";
import { FakeRuntime } from "../support/fake_runtime.ts";

export const fingerprint = "0123456789abcdef".repeat(4);

/** The instance service on a fake runtime and a pool that is a plain directory. */
export interface World extends AsyncDisposable {
  readonly root: string;
  readonly database: Database;
  readonly runtime: FakeRuntime;
  readonly instances: Instances;
  readonly events: Events;
  readonly operations: Operations;
  readonly journal: Journal;
  /** Changes of owners, as "path from to". */
  readonly shifts: string[];
  /** Abilities of the pool, which a test may change. */
  readonly pool: { idmappedMounts: boolean; failCreate?: Error };
  /** Runs an operation to its end. @throws {Error} With the operation's error text. */
  done(operation: Operation): Promise<void>;
  create(name: string, more?: Record<string, unknown>): Promise<void>;
  addVolume(name: string, config?: Record<string, string>): Promise<void>;
  volumeConfig(name: string): Record<string, string>;
}

/** @param options.root Directory and runtime of an earlier world, to simulate a restart of the daemon. */
export async function makeWorld(options: { root?: string; runtime?: FakeRuntime } = {}): Promise<World> {
  const root = options.root ?? await mkdtemp(join(tmpdir(), "lido-instances-"));
  const database = new Database(join(root, "lido.db"));
  const quiet = { info: () => {}, warn: () => {} };
  const journal = new Journal(database, quiet);
  const events = new Events();
  const operations = new Operations(events);
  const runtime = options.runtime ?? new FakeRuntime();
  const pool: World["pool"] = { idmappedMounts: true };
  const shifts: string[] = [];
  const pathOf = (volume: Volume): string =>
    volume.snapshot === undefined
      ? join(root, volume.type, volume.name)
      : join(root, `${volume.type}-snapshots`, volume.name, volume.snapshot);
  const driver = {
    facets: {},
    absent: {},
    get idmappedMounts() {
      return pool.idmappedMounts;
    },
    path: pathOf,
    mount: async () => {},
    unmount: async () => {},
    exists: (volume: Volume) => access(pathOf(volume)).then(() => true, () => false),
    rename: (volume: Volume, name: string) => rename(pathOf(volume), pathOf({ ...volume, name })),
  } as unknown as Driver;
  const driverOf = (name: string) => {
    if (name !== "p") throw new LidoError("not_found", "Storage pool not found");
    return driver;
  };
  const mounts = new MountedVolumes({ driver: () => driver, config: () => ({}), log: quiet });
  const services: InstanceServices = {
    mounts,
    database,
    journal,
    events,
    operations,
    runtime,
    guests: { prepare: async () => [], release: async () => {}, adopt: async () => {}, changed: async () => {} },
    log: quiet,
    logs: join(root, "logs"),
    pools: {
      driver: driverOf,
      ready: async (name) => driverOf(name),
      placeOf: (_name, volume) => ({ path: driver.path(volume), isAvailable: true }),
    },
    volumes: {
      locks: new Locks(),
      createFor: async (_pool, volume) => {
        await mkdir(join(pathOf(volume), "rootfs", "etc"), { recursive: true });
        await mkdir(join(pathOf(volume), "templates"));
        await writeFile(
          join(pathOf(volume), "metadata.yaml"),
          "templates:\n  /etc/hostname: {when: [create, copy], template: hostname.tpl}\n",
        );
        await writeFile(join(pathOf(volume), "templates", "hostname.tpl"), "{{ container.name }}\n");
        if (pool.failCreate) throw pool.failCreate;
        insertVolume(database, { poolId: 1, type: volume.type, name: volume.name, config: {} });
      },
      usedBytes: async () => 0n,
      copiedBytes: async () => 0n,
      look: {
        refuseTaken: async (_pool, volume) => {
          if (await driver.exists(volume)) throw new LidoError("conflict", "it exists");
        },
        refuseTakenSnapshot: async () => {},
        refuseUnknownSnapshots: async () => {},
        unknownOf: () => [],
      },
      find: (_pool, volume) => existsSync(pathOf(volume)),
      rollBackFor: (_pool, volume) => rm(pathOf(volume), { recursive: true, force: true }),
      deleteFor: async (_pool, volume) => {
        await rm(pathOf(volume), { recursive: true, force: true });
        deleteVolumeRow(database, "p", volume.type, volume.name);
      },
    },
    images: {
      resolve: (name) => {
        if (name !== "bb" && !fingerprint.startsWith(name)) throw new LidoError("not_found", "Image not found");
        return {
          fingerprint,
          type: "container",
          architecture: "x86_64",
          properties: { os: "busybox" },
          profiles: ["default"],
        };
      },
      volumeOn: async () => ({ type: "image", name: fingerprint }),
      unpackedBytes: async () => undefined,
    },
    files: {
      read: (base, path) => readFile(join(base, path), "utf8").catch(() => undefined),
      write: (base, path, content) => writeFile(join(base, path), content),
      exists: (base, path) => access(join(base, path)).then(() => true, () => false),
      isDirectory: (base, path) => lstat(join(base, path)).then((info) => info.isDirectory(), () => false),
    },
    ids: {
      ranges: async () => ({
        uid: [{ start: 1_000_000, count: 400_000 }],
        gid: [{ start: 1_000_000, count: 400_000 }],
      }),
      shift: async (path, from, to) => {
        const [before, after] = [from, to].map((map) => map?.uid[0]?.host ?? 0);
        // Skip the step that only parks rare ids: it does not change root's.
        if (before !== after) shifts.push(`${path.slice(root.length)} ${before} ${after}`);
        return 0;
      },
    },
  };
  if (!options.root) {
    database.run("INSERT INTO storage_pools (name, driver, state) VALUES ('p', 'dir', 'Created')");
    database.run(
      "UPDATE profiles SET devices = ? WHERE name = 'default'",
      JSON.stringify({ root: { type: "disk", path: "/", pool: "p" } }),
    );
  }
  const instances = new Instances(services);
  const done = async (operation: Operation): Promise<void> => {
    await operation.finished;
    if (operation.view().err) throw new Error(operation.view().err);
  };
  return {
    root,
    database,
    runtime,
    instances,
    events,
    operations,
    journal,
    shifts,
    pool,
    done,
    create: async (name, more = {}) =>
      await done(
        instances.create(instancesPostSchema.parse({ name, source: { type: "image", alias: "bb" }, ...more })),
      ),
    addVolume: async (name, config = {}) => {
      await mkdir(pathOf({ type: "custom", name: `default_${name}` }), { recursive: true });
      database.run(
        "INSERT INTO storage_volumes (pool_id, type, name, created_at, config) VALUES (1, 'custom', ?, '', ?)",
        name,
        JSON.stringify(config),
      );
    },
    volumeConfig: (name) =>
      JSON.parse(String(database.get("SELECT config FROM storage_volumes WHERE name = ?", name)!.config)),
    [Symbol.asyncDispose]: async () => {
      await instances.close();
      await operations.close();
      database.close();
      if (!options.root) await rm(root, { recursive: true, force: true });
    },
  };
}
