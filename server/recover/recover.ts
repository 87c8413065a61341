import { readdir } from "node:fs/promises";
import { LidoError, messageOf } from "../../api/errors.ts";
import type { FoundPool, RecoverPost, RecoverResult, RecoverVolume } from "../../api/types.ts";
import { readBeneath } from "../../drivers/host/files/beneath.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { Driver } from "../../drivers/storage/driver.ts";
import { fromDisk } from "../../drivers/storage/layout.ts";
import type { Paths } from "../paths.ts";
import type { Instances } from "../instances/instances.ts";
import { parsePoolRecord } from "../records/volume_record.ts";
import type { Database } from "../state/database.ts";
import { findPools } from "../pools/found_pool.ts";
import type { Pools } from "../pools/pools.ts";
import { deleteVolumeRow, insertSnapshot, insertVolume, volumeRow } from "../store/rows.ts";
import { lockName, type Volumes } from "../volumes/volumes.ts";
import type { Config } from "../../api/types.ts";
import { type FoundSnapshots, type InstanceFinding, type Scan, scanPool, type VolumeFinding } from "./scan.ts";

export interface RecoverOptions {
  readonly database: Database;
  readonly host: Host;
  readonly pools: Pools;
  readonly volumes: Volumes;
  readonly instances: Instances;
  readonly paths: Paths;
}

type Asked = RecoverPost["pools"][number];

/** Inserts unknown volumes and instances on disk into the database: `lxd recover`. Each is recovered in one transaction or not at all; known ones are
 * skipped, so recovery can be repeated, also after a kill. */
export class Recover {
  readonly #options: RecoverOptions;
  #isBusy = false;

  constructor(options: RecoverOptions) {
    this.#options = options;
  }

  /** Unknown pools that this host seems to have. */
  async found(): Promise<FoundPool[]> {
    const { pools, paths } = this.#options;
    const noted: FoundPool[] = [];
    for (const file of await readdir(paths.pools)) {
      try {
        const { name, driver, config } = parsePoolRecord(
          new TextDecoder().decode(readBeneath(paths.pools, file)!),
          file,
        );
        if (`${name}.yaml` === file && config.source) {
          noted.push({ name, driver, config: this.#placeOf(driver, config) });
        }
      } catch {
        // A copy of a pool's record is only a hint: ignore one that cannot be read.
      }
    }
    const known = new Set(pools.list().map(({ name }) => name));
    return await findPools(paths, noted, known, (path) => pools.sources.isThere(path));
  }

  /** The keys of a pool's configuration that tell where the pool is. */
  #placeOf(driver: string, config: Config): Config {
    const { poolKeys } = this.#options.pools.kind(driver);
    return Object.fromEntries(
      Object.entries(config).filter(([key]) => poolKeys[key]?.fixed && key !== "source.wipe"),
    );
  }

  /** Finds what could be recovered; changes nothing. @throws {LidoError} bad_request for a pool that is not as the request describes it. */
  validate(post: RecoverPost): Promise<RecoverResult> {
    return this.#alone(async () => {
      const result = empty();
      for (const pool of checkAsked(post)) {
        await this.#withPool(pool, (driver) => this.#look(pool, driver, post, result, namesOf(post)));
      }
      return result;
    });
  }

  /** Recovers all that `validate` finds. If a dependency is missing (a profile, a project), changes nothing and returns the list of missing ones. */
  async import(post: RecoverPost): Promise<RecoverResult> {
    const seen = await this.validate(post);
    if (seen.DependencyErrors.length > 0) return seen;
    return await this.#alone(async () => {
      const result = empty(), lost: { pool: string; found: InstanceFinding }[] = [];
      for (const asked of checkAsked(post)) {
        await this.#withPool(asked, async (driver, keep) => {
          const scan = await this.#look(asked, driver, post, empty(), namesOf(post));
          result.Problems.push(...scan.problems.map((text) => inPool(asked.name, text)));
          keep?.({ description: scan.pool?.description ?? asked.description, config: this.#configOf(asked, scan) });
          for (const found of scan.volumes) {
            await this.#try(asked.name, found, result, () => this.#importVolume(asked.name, found));
          }
          for (const found of scan.snapshots) {
            await this.#try(asked.name, found, result, () => this.#importSnapshots(asked.name, found));
          }
          lost.push(...scan.instances.map((found) => ({ pool: asked.name, found })));
          if (post.drop_images) {
            for (const image of scan.images) await this.#options.volumes.deleteFor(asked.name, image);
          } else result.UnknownImages.push(...scan.images.map(({ name }) => `${asked.name}/${name}`));
        });
      }
      // Instances last, when all volumes that they may use are recovered.
      for (const { pool, found } of lost) {
        await this.#try(pool, found, result, () => this.#importInstance(pool, found));
      }
      return result;
    });
  }

  async #look(
    asked: Asked,
    driver: Driver,
    post: RecoverPost,
    result: RecoverResult,
    pools: Set<string>,
  ): Promise<Scan> {
    const { database, volumes, instances } = this.#options;
    const { name } = asked;
    const known = new Set(instances.names());
    const scan = await scanPool(driver, {
      // A known root volume without an instance counts as unknown: it cannot be used.
      isKnown: (volume) => volumes.find(name, volume) && (volume.type !== "container" || known.has(volume.name)),
      unknownOf: (volume, snapshots) => volumes.look.unknownOf(name, volume, snapshots),
      isBusy: (volume) => volumes.isBusy(name, volume),
      isMounted: async (volume) => await this.#options.host.mounts.at(driver.path(volume)) !== undefined,
      force: post.force,
    });
    if (scan.pool && scan.pool.name !== name && asked.driver !== "") {
      throw new LidoError(
        "bad_request",
        `The pool at "${driver.pool.config.source}" is named "${scan.pool.name}", not "${name}"`,
      );
    }
    const missing = (text: string) => {
      if (!result.DependencyErrors.includes(text)) result.DependencyErrors.push(text);
    };
    const isForeign = ({ project }: { project: string }) => {
      if (project !== "default") missing(`Project "${project}"`);
      return project !== "default";
    };
    for (const found of scan.volumes.filter((one) => !isForeign(one))) {
      result.UnknownVolumes.push(view(name, "volume", found, found.record.snapshots.length));
    }
    for (const found of scan.snapshots) result.UnknownVolumes.push(viewSnapshots(name, found));
    for (const found of scan.instances.filter((one) => !isForeign(one))) {
      const { instance, expanded, snapshots } = found.backup;
      const known = new Set(database.all("SELECT name FROM profiles").map((row) => String(row.name)));
      for (const profile of instance.profiles.filter((one) => !known.has(one))) {
        missing(`Profile "${profile}" in project "default"`);
      }
      try {
        found.notes.push(...instances.notesOnRecovery({ instance, expanded, snapshots: [] }, name));
      } catch (error) {
        scan.problems.push(`container "${found.name}": ${messageOf(error)}`);
        scan.instances.splice(scan.instances.indexOf(found), 1);
        continue;
      }
      const image = instance.config["volatile.base_image"];
      if (image && !database.get("SELECT id FROM images WHERE fingerprint = ?", image)) {
        found.notes.push(`its image ${image.slice(0, 12)} is not here; it runs without`);
      }
      for (const [device, { pool }] of Object.entries(instance.devices)) {
        if (pool && !pools.has(pool) && !this.#options.pools.names().includes(pool)) {
          found.notes.push(`device "${device}" is on storage pool "${pool}", which is not here`);
        }
      }
      result.UnknownVolumes.push(view(name, "container", found, snapshots.length));
    }
    result.Problems.push(...scan.problems.map((text) => inPool(name, text)));
    result.UnknownImages.push(...scan.images.map((image) => `${name}/${image.name}`));
    return scan;
  }

  /** @param work Gets `keep` for an unknown pool, and must call it to insert the pool into the database. */
  async #withPool<T>(
    asked: Asked,
    work: (driver: Driver, keep?: (info: { description: string; config: Config }) => void) => Promise<T>,
  ): Promise<T> {
    const { pools } = this.#options;
    if (pools.names().includes(asked.name)) {
      if (asked.driver !== "" && asked.driver !== pools.get(asked.name).driver) {
        throw new LidoError(
          "conflict",
          `Storage pool "${asked.name}" is known, on driver "${pools.get(asked.name).driver}"`,
        );
      }
      return await work(await pools.ready(asked.name));
    }
    return await pools.withFound(asked, work);
  }

  /** The request's settings, overridden by the pool's recorded ones; keys that the driver does not know are left out. */
  #configOf(asked: Asked, scan: Scan): Config {
    const kind = this.#options.pools.kind(asked.driver);
    const recorded = Object.entries(scan.pool?.config ?? {}).filter(([key]) =>
      Object.hasOwn(kind.poolKeys, key) || /^(volume|user|volatile)\./.test(key)
    );
    return { ...asked.config, ...Object.fromEntries(recorded) };
  }

  async #importVolume(pool: string, { volume, name, record }: VolumeFinding): Promise<string[]> {
    const { database, pools, volumes } = this.#options;
    await volumes.locks.hold([lockName(pool, volume)], async () => {
      if (!await (await pools.ready(pool)).exists(volume)) throw new LidoError("not_found", "it is not there any more");
      database.transaction(() => {
        if (volumeRow(database, pool, "custom", name)) throw new LidoError("conflict", "it is known already");
        const { description, createdAt, config, snapshots } = record;
        const row = { poolId: pools.id(pool), type: "custom" as const, name, description, config };
        const id = insertVolume(database, { ...row, ...(createdAt === undefined ? {} : { createdAt }) });
        volumes.insertSnapshots(
          id,
          snapshots.map((one) => ({
            name: one.name,
            description: one.description,
            created_at: one.createdAt,
            expires_at: one.expiresAt,
            config: JSON.stringify(one.config),
          })),
        );
      });
    });
    return [];
  }

  async #importInstance(pool: string, { volume, name, backup }: InstanceFinding): Promise<string[]> {
    const { database, pools, volumes, instances } = this.#options;
    return await volumes.locks.hold([lockName(pool, volume)], async () => {
      if (!await (await pools.ready(pool)).exists(volume)) throw new LidoError("not_found", "it is not there any more");
      const lost = { ...backup, snapshots: backup.snapshots.map(({ snapshot }) => snapshot) };
      return await instances.recover(lost, pool, () => {
        deleteVolumeRow(database, pool, "container", name); // the row of a root volume without an instance
        insertVolume(database, { poolId: pools.id(pool), type: "container", name, config: backup.volumeConfig });
      });
    });
  }

  /** The snapshots' own settings are not known: they get the present settings of their volume or instance. */
  async #importSnapshots(pool: string, { volume, snapshots }: FoundSnapshots): Promise<string[]> {
    const { database, volumes, instances } = this.#options;
    if (volume.type === "container") {
      await instances.recoverSnapshots(volume.name, snapshots);
      return [];
    }
    await volumes.locks.hold([lockName(pool, volume)], () => {
      const row = volumes.row(pool, volume.type, fromDisk(volume));
      const created_at = new Date().toISOString();
      database.transaction(() => {
        for (const name of snapshots) {
          insertSnapshot(database, Number(row.id), {
            name,
            description: "",
            created_at,
            expires_at: null,
            config: row.config!,
          });
        }
      });
      return Promise.resolve();
    });
    return [];
  }

  /** Recovers one finding; a failure becomes a problem in `result`, and does not stop the others. */
  async #try(
    pool: string,
    found: InstanceFinding | VolumeFinding | FoundSnapshots,
    result: RecoverResult,
    work: () => Promise<string[]>,
  ): Promise<void> {
    const seen = viewFound(pool, found);
    try {
      await work();
      result.UnknownVolumes.push(seen);
    } catch (error) {
      result.Problems.push(inPool(pool, `${seen.type} "${seen.name}": ${messageOf(error)}`));
    }
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isBusy) throw new LidoError("conflict", "Another recovery is going on");
    this.#isBusy = true;
    try {
      return await work();
    } finally {
      this.#isBusy = false;
    }
  }
}

function empty(): RecoverResult {
  return { UnknownVolumes: [], DependencyErrors: [], Problems: [], UnknownImages: [] };
}

const namesOf = (post: RecoverPost) => new Set(post.pools.map(({ name }) => name));
const inPool = (pool: string, text: string) => `pool "${pool}": ${text}`;

/** @throws {LidoError} bad_request for two pools with the same name or source. */
function checkAsked({ pools }: RecoverPost): readonly Asked[] {
  for (const [index, pool] of pools.entries()) {
    const before = pools.slice(0, index);
    if (before.some(({ name }) => name === pool.name)) {
      throw new LidoError("bad_request", `Storage pool "${pool.name}" is given twice`);
    }
    const same = before.find(({ config }) => pool.config.source && config.source === pool.config.source);
    if (same) {
      throw new LidoError(
        "bad_request",
        `Storage pools "${same.name}" and "${pool.name}" have one source: "${pool.config.source}"`,
      );
    }
  }
  return pools;
}

function viewFound(pool: string, found: InstanceFinding | VolumeFinding | FoundSnapshots): RecoverVolume {
  if ("snapshots" in found) return viewSnapshots(pool, found);
  if ("backup" in found) return view(pool, "container", found, found.backup.snapshots.length);
  return view(pool, "volume", found, found.record.snapshots.length);
}

function viewSnapshots(pool: string, { volume, snapshots }: FoundSnapshots): RecoverVolume {
  return {
    name: fromDisk(volume),
    type: volume.type === "container" ? "container" : "volume",
    snapshotCount: snapshots.length,
    project: "default",
    pool,
    notes: [`it is known; of its snapshots these are not, and get its settings of now: ${snapshots.join(", ")}`],
  };
}

function view(
  pool: string,
  type: string,
  found: InstanceFinding | VolumeFinding,
  snapshotCount: number,
): RecoverVolume {
  return { name: found.name, type, snapshotCount, project: found.project, pool, notes: found.notes };
}
