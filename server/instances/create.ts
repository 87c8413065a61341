import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { LidoError, notFound } from "../../api/errors.ts";
import { parseSizeBytes } from "../../api/size.ts";
import type { Config, Devices, InstancesPost } from "../../api/types.ts";
import { InUse, type Volume } from "../../drivers/storage/driver.ts";
import type { Operation } from "../operations/operations.ts";
import { watch } from "../operations/progress.ts";
import { architectureName, hostArchitecture } from "../config/architectures.ts";
import { checkForHost, checkInstanceConfig } from "../config/instance.ts";
import { checkDevices, checkExpandedDevices, disksOf, isRoot, rootDisk, rootOn } from "../config/devices.ts";
import type { Disks } from "./disks/disks.ts";
import type { IdmapAllocator } from "./idmap_allocator.ts";
import { checkInstanceName, generateName } from "./names.ts";
import type { ImageInfo, InstanceServices } from "./services.ts";
import { type InstanceRecord, type InstanceTable, merge, type SnapshotRecord } from "./table.ts";
import { volumeLock, volumeOf } from "./disks/rootfs.ts";
import { prefixed } from "./disks/sharing.ts";
import type { OpenIntent } from "../journal/journal.ts";

interface PoolIntent {
  name: string;
  pool: string;
}

/** What a new instance is made from: a request that was checked. */
export interface CreationPlan {
  readonly name: string;
  readonly architecture: string;
  readonly description: string;
  readonly ephemeral: boolean;
  readonly config: Config;
  readonly devices: Devices;
  readonly profiles: readonly string[];
  readonly template: "create" | "copy";
  readonly image?: ImageInfo;
  /** An instance, or one of its snapshots, to copy. */
  readonly copyOf?: { readonly record: InstanceRecord; readonly snapshot?: string; readonly withSnapshots: boolean };
}

/** Makes and deletes instances: a row and a root volume, both or neither. */
export class Creation {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #maps: IdmapAllocator;
  readonly #disks: Disks;
  readonly #openCreate: OpenIntent<PoolIntent>;
  readonly #openDelete: OpenIntent<PoolIntent>;

  constructor(services: InstanceServices, records: InstanceTable, maps: IdmapAllocator, disks: Disks) {
    this.#services = services;
    this.#records = records;
    this.#maps = maps;
    this.#disks = disks;
    // A deleted pool has no volumes left to delete.
    const hasPool = (pool: string) => services.database.get("SELECT id FROM storage_pools WHERE name = ?", pool);
    // Creation makes only the volume and the row: anything else of that name is not deleted.
    this.#openCreate = services.journal.kind<PoolIntent>("instance.create", async ({ name, pool }) => {
      if (hasPool(pool)) await services.volumes.rollBackFor(pool, volumeOf(name));
      records.delete(name);
    });
    // An interrupted deletion is completed.
    this.#openDelete = services.journal.kind<PoolIntent>("instance.delete", async ({ name, pool }) => {
      await services.runtime.destroy(name);
      if (hasPool(pool)) await services.volumes.deleteFor(pool, volumeOf(name));
      records.delete(name);
      await rm(`${services.logs}/${name}`, { recursive: true, force: true });
    });
  }

  /** Checks the request before an operation is started. @throws {LidoError} bad_request or not_found, with LXD's texts. */
  plan(post: InstancesPost): CreationPlan {
    if (post.type !== "" && post.type !== "container" && post.type !== "virtual-machine") {
      throw new LidoError("bad_request", "Invalid instance type");
    }
    if (post.name !== "") checkInstanceName(post.name);
    const name = post.name || generateName((each) => this.#records.find(each) !== undefined);
    const common = {
      name,
      description: post.description,
      ephemeral: post.ephemeral,
      config: merge(post.config, {}),
      devices: post.devices,
    };
    const architecture = post.architecture === "" ? undefined : architectureName(post.architecture);
    switch (post.source.type) {
      case "image": {
        const image = this.#image(post);
        if (post.type && image.type !== post.type) {
          throw new LidoError(
            "bad_request",
            `Requested image's type "${image.type}" doesn't match instance type "${post.type}"`,
          );
        }
        return {
          ...common,
          image,
          architecture: architecture ?? architectureName(image.architecture),
          profiles: this.#profiles(post.profiles ?? image.profiles),
          template: "create",
        };
      }
      case "none":
        if (post.type === "virtual-machine") throw new LidoError("bad_request", "Virtual machines aren't supported");
        return {
          ...common,
          architecture: architecture ?? hostArchitecture(),
          profiles: this.#profiles(post.profiles ?? ["default"]),
          template: "create",
        };
      case "copy":
        return this.#planCopy(post, common, architecture);
      case "migration":
        throw new LidoError("not_implemented", "Migration between servers isn't supported");
      default:
        throw new LidoError("bad_request", `Unknown source type ${post.source.type}`);
    }
  }

  /** Creates the instance; the caller holds its lock. A failure leaves nothing behind. */
  async create(plan: CreationPlan, operation: Operation): Promise<void> {
    let pool = "";
    const ranges = await this.#maps.ranges();
    let size: string | undefined;
    try {
      ({ pool, size } = this.#check(plan));
      for (const disk of disksOf(this.#records.expand(plan).devices)) await this.#disks.check(plan.name, disk);
    } catch (error) {
      throw prefixed("Failed creating instance record: ", error);
    }
    this.#driver(pool);
    this.#records.refuseTaken(plan.name);
    refuseRunning(this.#services, plan.name);
    await this.#services.volumes.look.refuseTaken(pool, volumeOf(plan.name));
    const config = merge(plan.config, {
      ...Object.fromEntries(
        Object.entries(plan.image?.properties ?? {}).map(([key, value]) => [`image.${key}`, value]),
      ),
      "volatile.apply_template": plan.template,
      "volatile.base_image": plan.image?.fingerprint ?? plan.config["volatile.base_image"],
      "volatile.cloud-init.instance-id": randomUUID(),
      "volatile.last_state.idmap": plan.copyOf?.record.config["volatile.last_state.idmap"] ?? "[]",
      "volatile.uuid": randomUUID(),
    });
    await using intent = this.#services.database.transaction(() => {
      try {
        const expanded = this.#records.expand({ ...plan, config }).config;
        const { volatile } = this.#maps.plan(plan.name, expanded, ranges);
        this.#records.insert({
          name: plan.name,
          architecture: plan.architecture,
          description: plan.description,
          ephemeral: plan.ephemeral,
          config: { ...config, ...volatile },
          devices: plan.devices,
          profiles: plan.profiles,
          createdAt: new Date().toISOString(),
        });
      } catch (error) {
        throw prefixed("Failed creating instance record: ", error);
      }
      return this.#openCreate({ name: plan.name, pool });
    });
    const sizeBytes = size ? parseSizeBytes(size) : undefined;
    const snapshots = await this.#holdSource(plan, async () => {
      const content = await this.#content(plan, pool, operation);
      const snapshots = this.#snapshotsOf(plan);
      await this.#services.volumes.createFor(pool, volumeOf(plan.name), {
        config: {},
        ...watch(operation, plan.name, async () => {
          const { from, fromPool = pool } = content;
          if (!from) return undefined;
          return await this.#services.volumes.copiedBytes(fromPool, from, snapshots.map((snapshot) => snapshot.name));
        }),
        ...content,
        snapshots: snapshots.map((snapshot) => snapshot.name),
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
      });
      return snapshots;
    });
    operation.sealUnlessCancelled();
    intent.commit(() => {
      const record = this.#records.get(plan.name);
      // A restored snapshot has its root disk on this pool.
      for (const snapshot of snapshots) {
        const devices = rootOn(pool, snapshot.devices, this.#records.expand(snapshot).devices, plan.devices);
        this.#records.insertFound(record, { ...snapshot, devices });
      }
    });
    this.#services.events.lifecycle("instance-created", `/1.0/instances/${plan.name}`, {
      type: "container",
      "storage-pool": pool,
    });
  }

  /** Deletes a stopped instance; the caller holds its lock. Once begun, it is completed, now or at the daemon's next start. */
  async delete(record: InstanceRecord): Promise<void> {
    const pool = this.#poolOf(record);
    if (pool) await this.#services.volumes.look.refuseUnknownSnapshots(pool, volumeOf(record.name));
    await using intent = this.#openDelete({ name: record.name, pool });
    if (pool) {
      await this.#services.volumes.deleteFor(pool, volumeOf(record.name)).catch((error) => {
        if (error instanceof InUse) intent.commit(() => {});
        throw error;
      });
    }
    await rm(`${this.#services.logs}/${record.name}`, { recursive: true, force: true });
    intent.commit(() => this.#records.delete(record.name));
    this.#services.events.lifecycle("instance-deleted", `/1.0/instances/${record.name}`);
  }

  /** @returns The root volume's pool, read from the volume's row because settings and profiles may have changed; "" if there is no volume. */
  #poolOf(record: InstanceRecord): string {
    const rows = this.#services.database.all(
      `SELECT storage_pools.name FROM storage_volumes JOIN storage_pools ON storage_pools.id = pool_id
       WHERE type = 'container' AND storage_volumes.name = ?`,
      record.name,
    ).map(({ name }) => String(name));
    const said = Object.values(this.#records.expand(record).devices).find(isRoot)?.pool;
    return said !== undefined && rows.includes(said) ? said : rows[0] ?? "";
  }

  #check(plan: CreationPlan): { pool: string; size?: string } {
    checkInstanceConfig(plan.config);
    checkForHost(plan.config, plan.copyOf?.record.config);
    try {
      checkDevices(plan.devices);
      const { devices } = this.#records.expand(plan);
      checkExpandedDevices(devices);
      const { device } = this.#root(devices);
      return { pool: device.pool!, ...(device.size ? { size: device.size } : {}) };
    } catch (error) {
      throw prefixed("Failed initialising instance: ", error);
    }
  }

  #root(devices: Devices): { device: Config } {
    try {
      return rootDisk(devices);
    } catch (error) {
      throw prefixed("Failed getting root disk: ", error);
    }
  }

  #driver(pool: string): void {
    try {
      this.#services.pools.driver(pool);
    } catch (error) {
      throw prefixed(`Failed loading storage pool "${pool}": `, error);
    }
  }

  /** Runs `work` under the shared lock of the source's volume: neither it nor its snapshots can be deleted, which would make the copy incomplete.
   * @throws {LidoError} not_found when the source was deleted before. */
  async #holdSource<T>({ copyOf }: CreationPlan, work: () => Promise<T>): Promise<T> {
    if (!copyOf) return await work();
    const { name } = copyOf.record;
    const { volumes } = this.#services;
    const pool = this.#poolOf(copyOf.record), isThere = () => volumes.find(pool, volumeOf(name));
    const wasThere = isThere();
    const hold = async () => {
      const record = this.#records.get(name);
      // An instance that is being deleted keeps its row when its volume is deleted already.
      if (wasThere && !isThere()) throw notFound("Instance", name);
      if (copyOf.snapshot !== undefined && !this.#records.findSnapshot(record, copyOf.snapshot)) {
        throw notFound("Instance snapshot", `${name}/${copyOf.snapshot}`);
      }
      return await work();
    };
    return await volumes.locks.hold([volumeLock(pool, name)], hold, undefined, "look");
  }

  /** The source of the root volume: an unpacked image, an instance or a snapshot; empty for an empty root volume. */
  async #content(
    plan: CreationPlan,
    pool: string,
    operation: Operation,
  ): Promise<{ from?: Volume; fromPool?: string }> {
    if (plan.image) {
      const { fingerprint } = plan.image;
      const { images } = this.#services;
      const watched = watch(operation, "Unpacking image", () => images.unpackedBytes(fingerprint));
      return { from: await images.volumeOn(pool, fingerprint, watched) };
    }
    if (!plan.copyOf) return {};
    const { record, snapshot } = plan.copyOf;
    const fromPool = rootDisk(this.#records.expand(record).devices).device.pool!;
    return { from: { ...volumeOf(record.name), ...(snapshot === undefined ? {} : { snapshot }) }, fromPool };
  }

  #snapshotsOf({ copyOf }: CreationPlan): SnapshotRecord[] {
    return copyOf?.withSnapshots ? this.#records.snapshots(copyOf.record) : [];
  }

  #image(post: InstancesPost): ImageInfo {
    const { alias, fingerprint, properties } = post.source;
    if (!alias && !fingerprint && !properties) {
      throw new LidoError(
        "bad_request",
        "Must specify one of alias, fingerprint or properties for init from image",
      );
    }
    if (!alias && !fingerprint) {
      throw new LidoError("not_implemented", "Finding an image by its properties isn't supported");
    }
    try {
      return this.#services.images.resolve(fingerprint || alias);
    } catch (error) {
      if (!(error instanceof LidoError) || error.code !== "not_found") throw error;
      throw new LidoError(
        "not_found",
        fingerprint ? "Image not provided for instance creation" : error.message,
      );
    }
  }

  #planCopy(
    post: InstancesPost,
    common: Pick<CreationPlan, "name" | "description" | "ephemeral" | "config" | "devices">,
    architecture: string | undefined,
  ): CreationPlan {
    if (!post.source.source) {
      throw new LidoError("bad_request", "Must specify a source instance");
    }
    const [sourceName, snapshot] = post.source.source.split("/", 2) as [string, string | undefined];
    const record = this.#records.get(sourceName);
    const origin = snapshot === undefined ? record : this.#records.findSnapshot(record, snapshot);
    if (!origin) throw notFound("Instance snapshot", post.source.source);
    const kept = Object.entries(origin.config).filter(([key]) =>
      !key.startsWith("volatile.") || key === "volatile.base_image"
    );
    const own = Object.entries(common.config).filter(([key]) =>
      !key.startsWith("volatile.") || key === "volatile.base_image"
    );
    return {
      ...common,
      architecture: architecture ?? record.architecture,
      config: Object.fromEntries([...kept, ...own]),
      devices: { ...origin.devices, ...common.devices },
      profiles: this.#profiles(post.profiles ?? origin.profiles),
      template: "copy",
      copyOf: {
        record: { ...record, config: origin.config },
        ...(snapshot === undefined ? {} : { snapshot }),
        withSnapshots: snapshot === undefined && !post.source.instance_only,
      },
    };
  }

  #profiles(profiles: readonly string[]): readonly string[] {
    this.#records.checkProfiles(profiles, (name) => `Requested profile "${name}" doesn't exist`);
    return profiles;
  }
}

/** Refuses the name of a running container whose instance is not in the database. @throws {LidoError} conflict. */
export function refuseRunning({ runtime }: Pick<InstanceServices, "runtime">, name: string): void {
  if (!runtime.get(name)) return;
  throw new LidoError("conflict", `A container "${name}" runs but its instance is not known; see "lido admin recover"`);
}
