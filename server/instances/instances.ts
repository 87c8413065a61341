/** Instances: the API's verbs. Each verb checks what can be checked at once, then answers with an operation that does the work under the
 * instance's lock. The parts (creation, lifecycle, devices, maps, snapshots) are in files of their own. */

import { LidoError, messageOf, wrongState } from "../../api/errors.ts";
import type {
  Config,
  Instance,
  InstanceFull,
  InstancePut,
  InstancesPost,
  InstanceState,
  InstanceStatePut,
} from "../../api/types.ts";
import type { IdMap } from "../../drivers/host/id_map.ts";
import type { Guest } from "../guests/guest_api.ts";
import type { Operation, OperationOptions } from "../operations/operations.ts";
import { adoptable, insertAdopted, type RecoverableInstance, stateOf } from "./adopt.ts";
import { Creation } from "./create.ts";
import { isTrue } from "../config/instance.ts";
import { disksOf } from "../config/devices.ts";
import { Disks } from "./disks/disks.ts";
import { HotDisks } from "./disks/hot_disks.ts";
import { parseIdmap } from "../ids/idmaps.ts";
import { Lifecycle } from "./lifecycle/lifecycle.ts";
import { type Action, OperationLocks } from "./locks.ts";
import { IdmapAllocator } from "./idmap_allocator.ts";
import { checkInstanceName } from "./names.ts";
import type { InstanceServices } from "./services.ts";
import { type Expanded, type InstanceRecord, InstanceTable, merge } from "./table.ts";
import { Renames } from "./rename.ts";
import { Rootfs } from "./disks/rootfs.ts";
import { Sharing } from "./disks/sharing.ts";
import { progressOf } from "./disks/shift_progress.ts";
import { expiryOf, InstanceSnapshots } from "./snapshots.ts";
import { StateChanges } from "./lifecycle/state_changes.ts";
import { type Followed, type InstanceSettings, type UpdateOptions, Updates } from "./update.ts";
import { type InstanceSnapshotView, instanceView, type Phase, snapshotView, stateView } from "./view.ts";

/** What a command needs to know of the container it is started in. */
export interface ExecTarget {
  readonly name: string;
  readonly pid: number;
  /** Expanded. */
  readonly config: Config;
  /** Absent for a privileged container. */
  readonly idmap?: IdMap;
}

export class Instances {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #locks = new OperationLocks();
  readonly #maps: IdmapAllocator;
  readonly #rootfs: Rootfs;
  readonly #creation: Creation;
  readonly #lifecycle: Lifecycle;
  readonly #states: StateChanges;
  readonly #disks: Disks;
  readonly #updates: Updates;
  readonly #renames: Renames;
  readonly #snapshots: InstanceSnapshots;
  #adoption: Promise<void> | undefined;
  #autostart: Promise<void> = Promise.resolve();
  #isClosing = false;

  constructor(services: InstanceServices) {
    this.#services = services;
    this.#records = new InstanceTable(services.database);
    const sharing = new Sharing(services, this.#records);
    const disks = this.#disks = new Disks(services, this.#records, sharing);
    const maps = this.#maps = new IdmapAllocator(services, this.#records);
    const parts = { services, records: this.#records, disks, maps };
    this.#rootfs = new Rootfs(services, this.#records);
    this.#creation = new Creation(services, this.#records, maps, disks);
    this.#snapshots = new InstanceSnapshots(services, this.#records, this.#rootfs);
    this.#renames = new Renames(services, this.#records, this.#rootfs);
    const hot = new HotDisks(services, this.#records, disks, () => this.adopt());
    this.#updates = new Updates({ ...parts, hot });
    this.#lifecycle = new Lifecycle({
      ...parts,
      rootfs: this.#rootfs,
      locks: this.#locks,
      remove: (record) => this.#creation.delete(record),
    });
    this.#states = new StateChanges(services, this.#records, this.#locks, this.#lifecycle);
  }

  names(): string[] {
    return this.#records.list().map((record) => record.name);
  }

  list(): Instance[] {
    const records = this.#records.list();
    const expanded = this.#records.expandAll(records);
    return records.map((record, index) => instanceView(record, expanded[index]!, this.#phase(record.name)));
  }

  /** Every instance with its state and snapshots: `recursion=2`. Instances deleted meanwhile are left out. */
  async listFull(): Promise<InstanceFull[]> {
    const all = await Promise.all(this.list().map((instance) => this.#full(instance)));
    return all.filter(({ name }) => this.#records.find(name) !== undefined);
  }

  /** @throws {LidoError} not_found. */
  get(name: string): Instance {
    const record = this.#records.get(name);
    return instanceView(record, this.#records.expand(record), this.#phase(name));
  }

  async getFull(name: string): Promise<InstanceFull> {
    return await this.#full(this.get(name));
  }

  /** The values that an instance's ETag is computed from: its settings without its state; with its description, which LXD leaves out. */
  etag(name: string): unknown {
    const { architecture, config, description, devices, ephemeral, profiles } = this.#records.get(name);
    return [architecture, config, description, devices, ephemeral, profiles];
  }

  async state(name: string): Promise<InstanceState> {
    const record = this.#records.get(name);
    const disk = await this.#rootfs.usage(record);
    return await stateView(this.#services.runtime, {
      name,
      disk,
      phase: () => this.#phase(name),
      lastExit: this.#records.lastExit(name),
    });
  }

  create(post: InstancesPost): Operation {
    const plan = this.#creation.plan(post);
    return this.#operate(plan.name, "create", "Creating instance", async (operation) => {
      await this.#creation.create(plan, operation);
      if (post.start) operation.note(await this.#lifecycle.start(plan.name, { progress: progressOf(operation) }));
    }, { cancel: () => {} });
  }

  /** @throws {LidoError} not_found. */
  setState = (name: string, put: InstanceStatePut): Operation => this.#states.set(name, put);

  /** The same for every instance that is not in that state yet: `PUT /1.0/instances`. */
  setStates = (put: InstanceStatePut): Operation => this.#states.setAll(put);

  /** Replaces the settings, or restores a snapshot. @throws {LidoError} not_found or bad_request. */
  update(name: string, put: InstancePut, options: UpdateOptions = {}): Operation {
    if (put.restore) return this.#restore(name, put.restore);
    return this.#update(this.#records.get(name), { ...put, profiles: put.profiles ?? [] }, options);
  }

  /** Changes some of the settings. */
  patch(name: string, put: Partial<InstancePut>, options: UpdateOptions = {}): Operation {
    const record = this.#records.get(name);
    const settings: InstanceSettings = {
      architecture: put.architecture || record.architecture,
      description: put.description ?? record.description,
      ephemeral: put.ephemeral ?? record.ephemeral,
      config: { ...record.config, ...put.config },
      devices: { ...record.devices, ...put.devices },
      profiles: put.profiles ?? record.profiles,
    };
    return this.#update(record, settings, options);
  }

  /** @throws {LidoError} bad_request or conflict. */
  rename(name: string, to: string): Operation {
    this.#records.get(name);
    checkInstanceName(to);
    if (this.#records.find(to)) throw new LidoError("conflict", `Name "${to}" already in use`);
    return this.#operate(name, "rename", "Renaming instance", async () => {
      if (this.#lifecycle.isOn(name)) {
        throw new LidoError("bad_request", "Renaming of running container not allowed");
      }
      using _target = await this.#locks.acquire(to, "rename");
      await this.#renames.rename(name, to);
    });
  }

  /** @throws {LidoError} not_found, or bad_request when it runs. */
  delete(name: string): Operation {
    this.#records.get(name);
    if (this.#lifecycle.isOn(name)) throw wrongState("Instance is running", name);
    return this.#operate(name, "delete", "Deleting instance", async () => {
      const record = this.#records.get(name);
      if (this.#lifecycle.isOn(name)) throw wrongState("Instance is running", name);
      if (isTrue(this.#records.expand(record).config["security.protection.delete"])) {
        throw wrongState("Container is protected", name);
      }
      await this.#creation.delete(record);
    });
  }

  snapshots(name: string): InstanceSnapshotView[] {
    const record = this.#records.get(name);
    const snapshots = this.#snapshots.list(record);
    const expanded = this.#records.expandAll(snapshots);
    return snapshots.map((snapshot, index) => snapshotView(record, snapshot, expanded[index]!));
  }

  snapshot(name: string, snapshot: string): InstanceSnapshotView {
    const record = this.#records.get(name);
    const found = this.#snapshots.get(record, snapshot);
    return snapshotView(record, found, this.#records.expand(found));
  }

  createSnapshot(name: string, post: { name: string; stateful: boolean; expires_at?: string | null }): Operation {
    const record = this.#records.get(name);
    if (post.name.includes("/")) throw new LidoError("bad_request", 'Invalid snapshot name: Cannot contain "/"');
    if (post.stateful) throw new LidoError("not_implemented", "Stateful snapshots aren't supported");
    const expiry = expiryOf(post.expires_at);
    return this.#operate(name, "snapshot", "Snapshotting instance", async (operation) => {
      const snapshot = post.name || await this.#snapshots.nextName(record);
      await this.#snapshots.create(this.#records.get(name), snapshot, expiry, operation);
    }, { cancel: () => {} });
  }

  deleteSnapshot(name: string, snapshot: string): Operation {
    const record = this.#records.get(name);
    this.#snapshots.get(record, snapshot);
    return this.#operate(name, "snapshot", "Deleting snapshot", () => this.#snapshots.delete(record, snapshot));
  }

  renameSnapshot(name: string, snapshot: string, to: string): Operation {
    const record = this.#records.get(name);
    this.#snapshots.get(record, snapshot);
    return this.#operate(name, "snapshot", "Renaming snapshot", () => this.#snapshots.rename(record, snapshot, to));
  }

  /** @param expiresAt Go's zero time or "" for never; absent changes nothing. @throws {LidoError} not_found; bad_request for an invalid time. */
  updateSnapshot(name: string, snapshot: string, expiresAt: string | undefined): Operation {
    const record = this.#records.get(name);
    this.#snapshots.get(record, snapshot);
    const expiry = expiryOf(expiresAt);
    return this.#operate(name, "snapshot", "Updating snapshot", async () => {
      if (expiresAt !== undefined) this.#snapshots.expire(record, snapshot, expiry);
    });
  }

  /** @throws {LidoError} bad_request "Instance is not running" or "Instance is frozen"; not_found. */
  execTarget(name: string): ExecTarget {
    const record = this.#records.get(name);
    const running = this.#services.runtime.get(name);
    if (!running) throw wrongState("Instance is not running", name);
    if (running.status === "frozen") throw wrongState("Instance is frozen", name);
    const { config } = this.#records.expand(record);
    const idmap = parseIdmap(config["volatile.idmap.current"]);
    return { name, pid: running.pid, config, ...(idmap ? { idmap } : {}) };
  }

  /** What the guest API shows of an instance; undefined for an unknown name. */
  guest(name: string): Guest | undefined {
    const record = this.#records.find(name);
    return record && { name, ...this.#records.expand(record) };
  }

  /** The instances that have a profile, with all their settings. */
  profileUsers(profile: string): Map<string, Expanded> {
    const records = this.#records.list().filter((each) => each.profiles.includes(profile));
    const expanded = this.#records.expandAll(records);
    return new Map(records.map(({ name }, index) => [name, expanded[index]!]));
  }

  /** Applies the change of a profile to the instances that use it. Called after the profile was saved.
   * @param before Result of `profileUsers` before the change. */
  async profileChanged(before: ReadonlyMap<string, Expanded>, options: UpdateOptions = {}): Promise<Followed> {
    await this.adopt();
    const failures: { instance: string; reason: string }[] = [], notes: string[] = [];
    for (const record of this.#records.list().filter(({ name }) => before.has(name))) {
      try {
        using _lock = await this.#locks.wait(record.name, "update");
        const remark = await this.#updates.follow(record.name, before.get(record.name)!, options);
        if (remark !== undefined) notes.push(remark);
      } catch (error) {
        failures.push({ instance: record.name, reason: messageOf(error) });
      }
    }
    return { notes, failures };
  }

  /** Runs `work` while nothing else changes these instances. */
  async hold<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
    using held = new DisposableStack();
    for (const name of [...names].sort()) held.use(await this.#locks.wait(name, "snapshot"));
    return await work();
  }

  /** Unfreezes a container if it is frozen, also one that an earlier daemon froze. */
  async thaw(name: string): Promise<void> {
    await this.adopt();
    if (this.#services.runtime.get(name)?.status === "frozen") await this.#services.runtime.unfreeze(name);
  }

  /** The instances that have a custom volume attached, and whether they run. */
  usersOfVolume(pool: string, volume: string): { name: string; isRunning: boolean }[] {
    const records = this.#records.list();
    const expanded = this.#records.expandAll(records);
    return records
      .filter((_, index) =>
        disksOf(expanded[index]!.devices).some((disk) => disk.volume?.pool === pool && disk.volume.name === volume)
      )
      .map(({ name }) => ({ name, isRunning: this.#services.runtime.get(name) !== undefined }));
  }

  /** Inserts an instance found on disk, in one transaction with `insertVolume`. Adopts its container if it still runs.
   * @returns Notes on what differs from before. @throws {LidoError} conflict for a name that is taken; bad_request. */
  async recover(lost: RecoverableInstance, pool: string, insertVolume: () => void): Promise<string[]> {
    const { name } = lost.instance;
    using _lock = await this.#locks.acquire(name, "create");
    const ranges = await this.#maps.ranges();
    const { notes, ...checked } = adoptable(lost, pool, this.#records);
    const running = this.#services.runtime.get(name);
    this.#services.database.transaction(() => {
      insertVolume();
      insertAdopted(checked, running, ranges, { records: this.#records, maps: this.#maps });
    });
    if (running) {
      this.#rootfs.adopt(this.#records.get(name));
      this.#disks.adoptAll(name);
    }
    this.#services.events.lifecycle("instance-created", `/1.0/instances/${name}`, {
      type: "container",
      "storage-pool": pool,
    });
    return notes;
  }

  /** Inserts snapshots of an instance found on disk, with its present settings. @throws {LidoError} not_found, or conflict. */
  async recoverSnapshots(name: string, snapshots: readonly string[]): Promise<void> {
    using _lock = await this.#locks.acquire(name, "snapshot");
    const record = this.#records.get(name);
    this.#services.database.transaction(() => {
      for (const snapshot of snapshots) this.#records.insertSnapshot(record, snapshot, undefined);
    });
  }

  /** The notes that `recover` would return. */
  notesOnRecovery = (lost: RecoverableInstance, pool: string): string[] => adoptable(lost, pool, this.#records).notes;

  /** Directory of an instance's log files. @throws {LidoError} not_found. */
  logDirectory(name: string): string {
    this.#records.get(name);
    return `${this.#services.logs}/${name}`;
  }

  /** Adopts the containers of an earlier daemon and their volumes. Runs once, at the first call. */
  adopt(): Promise<void> {
    return this.#adoption ??= this.#services.runtime.adopt().then(async () => {
      for (const record of this.#records.list()) {
        const running = this.#services.runtime.get(record.name);
        if (!running) continue;
        // The earlier daemon may have been killed between starting the container and recording its state and id map.
        this.#records.setConfig(record.name, stateOf(running));
        this.#rootfs.adopt(record);
        this.#disks.adoptAll(record.name);
        this.#updates.limitAgain(record.name);
      }
      await this.#services.guests.adopt();
    });
  }

  /** Cleans up after containers that ended while no daemon ran, then starts in the background the instances due for autostart. */
  async start(): Promise<void> {
    await this.adopt();
    await this.#maps.renew();
    const due = await this.#lifecycle.takeUp();
    this.#autostart = this.#startAll(due);
  }

  /** Waits for the work under way; containers keep running. */
  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#autostart;
    await this.#lifecycle.close();
    await this.#locks.idle();
  }

  async #startAll(due: readonly InstanceRecord[]): Promise<void> {
    for (const record of due) {
      if (this.#isClosing) return;
      try {
        using lock = await this.#locks.wait(record.name, "start");
        if (this.#services.runtime.get(record.name)) continue;
        const remark = await this.#lifecycle.start(record.name, { unwatched: lock.awaited });
        if (remark !== undefined) this.#services.log.warn({ instance: record.name }, remark);
        this.#services.log.info({ instance: record.name }, "started with the daemon");
      } catch (error) {
        this.#services.log.warn({ instance: record.name, error: messageOf(error) }, "could not start an instance");
      }
      const delaySeconds = Number(this.#records.expand(record).config["boot.autostart.delay"] ?? 0);
      if (delaySeconds > 0) await new Promise((resolve) => setTimeout(resolve, delaySeconds * 1000).unref());
    }
  }

  #update(record: InstanceRecord, settings: InstanceSettings, options: UpdateOptions): Operation {
    this.#records.checkProfiles(settings.profiles, (name) => `Profile not found: ${JSON.stringify(name)}`);
    const cleaned = { ...settings, config: merge(settings.config, {}) };
    return this.#operate(
      record.name,
      "update",
      "Updating instance",
      async (operation) =>
        operation.note(
          await this.#updates.apply(record.name, cleaned, { ...options, progress: progressOf(operation) }),
        ),
    );
  }

  #restore(name: string, restore: string): Operation {
    const record = this.#records.get(name);
    const snapshot = restore.startsWith(`${name}/`) ? restore.slice(name.length + 1) : restore;
    if (!this.#snapshots.list(record).some((each) => each.name === snapshot)) {
      throw new LidoError("not_found", `Snapshot ${name}/${snapshot} does not exist`);
    }
    return this.#operate(name, "restore", "Restoring snapshot", async (operation) => {
      const wasRunning = this.#lifecycle.isOn(name);
      if (wasRunning) await this.#lifecycle.stop(name, { force: true, restart: true });
      try {
        await this.#snapshots.restore(this.#records.get(name), snapshot, operation);
      } finally {
        // A failed or cancelled restore has changed nothing.
        if (wasRunning) operation.note(await this.#lifecycle.start(name, { progress: progressOf(operation) }));
      }
    }, { cancel: () => {} });
  }

  #phase(name: string): Phase {
    const running = this.#services.runtime.get(name);
    if (running) return running.status;
    return this.#lifecycle.isOn(name) || this.#locks.action(name) === "stop" ? "ending" : "stopped";
  }

  async #full(instance: Instance): Promise<InstanceFull> {
    const snapshots = this.snapshots(instance.name);
    return {
      ...instance,
      state: await this.state(instance.name).catch(() => null),
      snapshots: snapshots.length > 0 ? snapshots : null,
      backups: null,
    };
  }

  #operate(
    name: string,
    action: Action,
    description: string,
    run: (operation: Operation) => Promise<void>,
    options: Pick<OperationOptions, "resources" | "cancel"> = {},
  ): Operation {
    return this.#services.operations.start({
      description,
      resources: { instances: [`/1.0/instances/${name}`], containers: [`/1.0/containers/${name}`] },
      ...options,
      run: async (operation) => {
        using _lock = await this.#locks.acquire(name, action);
        await run(operation);
      },
    });
  }
}
