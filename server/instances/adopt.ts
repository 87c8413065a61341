import { LidoError, messageOf } from "../../api/errors.ts";
import type { Config, Devices } from "../../api/types.ts";
import type { RunningContainer } from "../../drivers/runtime/runtime.ts";
import { architectureName } from "../config/architectures.ts";
import { checkInstanceConfig } from "../config/instance.ts";
import { checkDevices, freeName, isRoot, sameDevice } from "../config/devices.ts";
import { formatIdmap, type HostRanges } from "../ids/idmaps.ts";
import type { IdmapAllocator } from "./idmap_allocator.ts";
import { checkInstanceName } from "./names.ts";
import { type Expanded, type InstanceFields, type InstanceTable, merge, type SnapshotRecord } from "./table.ts";

/** An instance found on disk, as its backup.yaml describes it. */
export interface RecoverableInstance {
  readonly instance: InstanceFields;
  readonly expanded: Expanded;
  readonly snapshots: readonly Omit<SnapshotRecord, "id">[];
}

/** The instance as recovery will insert it: keys and devices that lido does not support are left out, each with a note.
 * @param pool The pool its volume was found on; its root disk is set to it. @throws {LidoError} bad_request for a name that is not allowed. */
export function adoptable(
  lost: RecoverableInstance,
  pool: string,
  records: InstanceTable,
): RecoverableInstance & { readonly notes: string[] } {
  const { instance } = lost;
  checkInstanceName(instance.name);
  const notes: string[] = [];
  const config = allowed(instance.config, "", notes, (part) => checkInstanceConfig(part as Config));
  const devices = allowed(instance.devices, "device ", notes, (part) => checkDevices(part as Devices));
  const withRoot = rootPlaced(
    devices,
    lost.expanded.devices,
    records.expand({ ...instance, config, devices }).devices,
    pool,
  );
  return {
    instance: { ...instance, architecture: architectureName(instance.architecture), config, devices: withRoot },
    expanded: lost.expanded,
    snapshots: lost.snapshots.map((snapshot) => ({
      ...snapshot,
      config: allowed(snapshot.config, "", [], (part) => checkInstanceConfig(part as Config)),
      devices: allowed(snapshot.devices, "", [], (part) => checkDevices(part as Devices)),
    })),
    notes,
  };
}

/** The volatile keys of an instance whose container runs. */
export function stateOf({ idmap }: RunningContainer): Config {
  return { "volatile.idmap.current": formatIdmap(idmap), "volatile.last_state.power": "RUNNING" };
}

/** Inserts the instance and its snapshots in the caller's transaction.
 * @param running Its container if it still runs, which has the current id map. */
export function insertAdopted(
  lost: RecoverableInstance,
  running: RunningContainer | undefined,
  ranges: HostRanges,
  parts: { records: InstanceTable; maps: IdmapAllocator },
): void {
  const { records, maps } = parts;
  const { instance } = lost;
  const expanded = records.expand(instance).config;
  const { volatile } = maps.plan(instance.name, expanded, ranges);
  const record = records.insert({
    ...instance,
    config: merge(
      { ...instance.config, ...volatile },
      running ? stateOf(running) : { "volatile.last_state.power": "STOPPED" },
    ),
  });
  for (const snapshot of lost.snapshots) records.insertFound(record, snapshot);
}

function allowed<T>(
  all: Readonly<Record<string, T>>,
  noun: string,
  notes: string[],
  check: (part: Record<string, T>) => void,
): Record<string, T> {
  return Object.fromEntries(
    Object.entries(all).filter(([key, value]) => {
      try {
        check({ [key]: value });
        return true;
      } catch (error) {
        if (!(error instanceof LidoError)) throw error;
        notes.push(`${noun}${JSON.stringify(key)} is left out: ${messageOf(error)}`);
        return false;
      }
    }),
  );
}

/** As LXD: sets the root disk to the pool the volume was found on. Adds nothing if a profile's root disk is the same. */
function rootPlaced(own: Devices, before: Devices, now: Devices, pool: string): Devices {
  const rootOf = (devices: Devices) => Object.entries(devices).find(([, device]) => isRoot(device));
  const mine = rootOf(own);
  if (mine) return { ...own, [mine[0]]: { ...mine[1], pool } };
  const old = rootOf(before)?.[1], present = rootOf(now)?.[1];
  const isSame = present?.pool === pool && (!old || sameDevice({ ...old, pool }, present));
  if (isSame) return own;
  // A device of the same name overrides a profile's root disk.
  const name = rootOf(now)?.[0] ?? freeName("root", own);
  return { ...own, [name]: { ...old, type: "disk", path: "/", pool } };
}
