import { LidoError, messageOf } from "../../api/errors.ts";
import type { Driver, Volume } from "../../drivers/storage/driver.ts";
import { directoryOf, fromDisk } from "../../drivers/storage/layout.ts";
import { type InstanceBackup, parseBackup, type PoolInfo } from "../records/backup_yaml.ts";
import { type OpenIntent, RecordStore } from "../records/store.ts";
import { parsePoolRecord, parseVolumeRecord, type VolumeRecord } from "../records/volume_record.ts";
import { checkName } from "../store/names.ts";

/** Finds what is in a pool and not in the database, from the pool alone. Everything read may be damaged, or forged by whoever had the disk. */

export interface DiskFinding {
  readonly volume: Volume;
  /** Without its project. */
  readonly name: string;
  readonly project: string;
  /** Notes for the user on what will differ from before. */
  readonly notes: string[];
}
export interface InstanceFinding extends DiskFinding {
  readonly backup: InstanceBackup;
}
export interface VolumeFinding extends DiskFinding {
  readonly record: VolumeRecord;
}

/** Unknown snapshots of a known volume. */
export interface FoundSnapshots {
  readonly volume: Volume;
  readonly snapshots: readonly string[];
}

export interface Scan {
  /** From the pool's own record, or else from an instance's. */
  readonly pool?: PoolInfo;
  readonly instances: InstanceFinding[];
  readonly volumes: VolumeFinding[];
  readonly snapshots: FoundSnapshots[];
  readonly images: Volume[];
  /** What cannot be recovered, and why. */
  readonly problems: string[];
}

export interface ScanOptions {
  readonly isKnown: (volume: Volume) => boolean;
  /** The unknown ones of a known volume's snapshots. */
  readonly unknownOf: (volume: Volume, snapshots: readonly string[]) => string[];
  /** Whether an operation is running on a volume, which is then skipped. */
  readonly isBusy: (volume: Volume) => boolean;
  readonly isMounted: (volume: Volume) => Promise<boolean>;
  readonly force: boolean;
}

export async function scanPool(driver: Driver, options: ScanOptions): Promise<Scan> {
  const store = new RecordStore(driver.pool.root);
  const problems: string[] = [],
    images: Volume[] = [],
    instances: InstanceFinding[] = [],
    volumes: VolumeFinding[] = [];
  const unknown: FoundSnapshots[] = [];
  const open = [...(await store.openIntents()).values()].filter((one) => one !== undefined);
  const listed = await driver.list();
  const snapshots = Map.groupBy(listed.filter((one) => one.snapshot !== undefined), keyOf);
  const fitting = async (volume: Volume, names: readonly string[]) => {
    const found: string[] = [];
    for (const snapshot of names) {
      const reason = await driver.unfit?.({ ...volume, snapshot });
      if (reason === undefined) found.push(snapshot);
      else problems.push(`${volume.type} "${fromDisk(volume)}": snapshot "${snapshot}": ${reason}`);
    }
    return found;
  };
  for (const volume of listed.filter((one) => one.snapshot === undefined)) {
    if (options.isBusy(volume)) continue;
    if (options.isKnown(volume)) {
      const present = (snapshots.get(keyOf(volume)) ?? []).map((one) => one.snapshot!).sort();
      const cutOff = intentsOf(open, volume);
      const found = await fitting(
        volume,
        options.unknownOf(volume, present).filter((name) => isName(name) && !cutOff.snapshots.has(name)),
      );
      if (found.length > 0) unknown.push({ volume, snapshots: found });
      continue;
    }
    if (volume.type === "image") {
      images.push(volume);
      continue;
    }
    try {
      const reason = await driver.unfit?.(volume);
      if (reason !== undefined) throw refuse(reason);
      const names = await fitting(volume, (snapshots.get(keyOf(volume)) ?? []).map((one) => one.snapshot!).sort());
      const cutOff = intentsOf(open, volume);
      if (cutOff.whole !== undefined && !options.force) {
        throw refuse(`it was cut off: ${cutOff.whole}; "--force" recovers what is there`);
      }
      if (volume.type === "container") {
        // The volume is mounted if the instance runs, or ran when the database was lost.
        const isMounted = await options.isMounted(volume);
        instances.push(await readInstance(driver, store, volume, { names, cutOff, isMounted }));
      } else volumes.push(readVolume(store, volume, names, cutOff));
    } catch (error) {
      problems.push(`${volume.type} "${fromDisk(volume)}": ${messageOf(error)}`);
    }
  }
  const own = store.readPool();
  const pool = own === undefined
    ? instances.find(({ backup }) => backup.pool)?.backup.pool
    : parsePoolRecord(own, "pool.yaml");
  return { ...(pool ? { pool } : {}), instances, volumes, snapshots: unknown, images, problems };
}

interface CutOff {
  /** Kind of the interrupted intent that concerned the volume as a whole. */
  readonly whole?: string;
  readonly snapshots: ReadonlySet<string>;
  readonly notes: string[];
}

function intentsOf(open: readonly OpenIntent[], volume: Volume): CutOff {
  const snapshots = new Set<string>(), notes: string[] = [];
  let whole: string | undefined;
  for (const { kind, payload } of open) {
    const names = [payload.name, payload.to, payload.volume && `default_${payload.volume}`];
    const isContainer = kind.startsWith("instance.") || payload.type === "container";
    if (!names.includes(volume.name) || isContainer !== (volume.type === "container")) continue;
    if (/^(volume|instance)\.(delete|rename)$/.test(kind)) whole = kind;
    else if (/shift$/.test(kind)) notes.push("the owners of its files were being changed, and may be mixed");
    else if (typeof payload.snapshot === "string" && !/restore/.test(kind)) {
      snapshots.add(payload.snapshot);
      if (typeof payload.to === "string") snapshots.add(payload.to);
    }
  }
  return { ...(whole === undefined ? {} : { whole }), snapshots, notes };
}

async function readInstance(
  driver: Driver,
  store: RecordStore,
  volume: Volume,
  { names: present, cutOff, isMounted }: {
    readonly names: readonly string[];
    readonly cutOff: CutOff;
    readonly isMounted: boolean;
  },
): Promise<InstanceFinding> {
  const [name, project] = splitName(volume.name, "default");
  if (!isMounted) await driver.mount(volume);
  let text: string | undefined;
  try {
    text = store.readBackup(directoryOf(volume));
  } finally {
    if (!isMounted) await driver.unmount(volume);
  }
  if (text === undefined) {
    throw refuse("it has no backup.yaml: its making or its deletion was cut off, or somebody took the file away");
  }
  const backup = parseBackup(text);
  if (backup.instance.name !== name) {
    throw refuse(`its backup.yaml is that of "${backup.instance.name}": a copy or a rename was cut off`);
  }
  const notes = [...cutOff.notes];
  const names = choose(backup.snapshots.map(({ snapshot }) => snapshot.name), present, cutOff, notes);
  const snapshots = backup.snapshots.filter(({ snapshot }) => names.has(snapshot.name));
  return { volume, name, project, notes, backup: { ...backup, snapshots } };
}

function readVolume(store: RecordStore, volume: Volume, present: readonly string[], cutOff: CutOff): VolumeFinding {
  const [name, project] = splitName(volume.name);
  checkName("Storage volume", name);
  const notes = [...cutOff.notes];
  const text = store.readVolume(volume.name);
  if (text === undefined) {
    notes.push("it has no record (LXD keeps none, and one that was being made has none yet): its settings are lost");
    const now = new Date().toISOString();
    const one = { description: "", createdAt: now, expiresAt: null, config: {} };
    const snapshots = present.filter((snapshot) => isName(snapshot)).map((snapshot) => ({ ...one, name: snapshot }));
    return { volume, name, project, notes, record: { name, description: "", config: {}, snapshots } };
  }
  const record = parseVolumeRecord(text, `${volume.name}.yaml`);
  if (record.name !== name) throw refuse(`its record is that of "${record.name}"`);
  const { "volatile.idmap.last": last, "volatile.idmap.next": next } = record.config;
  if (next !== undefined && last !== next && cutOff.notes.length === 0) {
    notes.push("the owners of its files may be mixed");
  }
  const names = choose(record.snapshots.map((one) => one.name), present, cutOff, notes);
  return {
    volume,
    name,
    project,
    notes,
    record: { ...record, snapshots: record.snapshots.filter((one) => names.has(one.name)) },
  };
}

/** The snapshots that are recorded and on disk. */
function choose(recorded: readonly string[], present: readonly string[], cutOff: CutOff, notes: string[]): Set<string> {
  const chosen = new Set<string>();
  for (const name of recorded) {
    if (!isName(name) || chosen.has(name)) {
      notes.push(`snapshot ${JSON.stringify(name)}: its name is not allowed, or there twice`);
    } else if (!present.includes(name)) notes.push(`snapshot "${name}" is not on disk`);
    else if (cutOff.snapshots.has(name)) {
      notes.push(`snapshot "${name}" was cut off while it was made or deleted: left out`);
    } else chosen.add(name);
  }
  for (const name of present) {
    if (!recorded.includes(name)) {
      notes.push(
        `snapshot ${JSON.stringify(name)} is on disk but not recorded: left out; another recovery makes it known`,
      );
    }
  }
  return chosen;
}

function isName(name: string): boolean {
  return !/[/\s\0]/.test(name) && name !== "" && name !== "." && name !== ".." && name.length <= 200;
}

/** @param whole The project of a name that has none. */
function splitName(onDisk: string, whole?: string): [name: string, project: string] {
  const at = onDisk.indexOf("_");
  if (at > 0) return [onDisk.slice(at + 1), onDisk.slice(0, at)];
  if (whole === undefined) throw refuse("its name has no project before it");
  return [onDisk, whole];
}

const keyOf = ({ type, name }: Volume) => `${type}/${name}`;
const refuse = (text: string) => new LidoError("bad_request", text);
