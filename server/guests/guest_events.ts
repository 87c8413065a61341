import type { Config, Devices } from "../../api/types.ts";
import { sameDevice } from "../config/devices.ts";
import { type Guest, isGuestKey } from "./guest_api.ts";

/** What a guest is told of itself. @see https://documentation.ubuntu.com/lxd/en/latest/dev-lxd/ */
export interface GuestEvent {
  readonly type: "config" | "device";
  readonly timestamp: string;
  readonly metadata: Record<string, unknown>;
}

/** Changes of these do not make a device anew. */
const updatable = /^(size|boot\.priority|limits\..*)$/;

/** @returns What a change of an instance is to its guest, in LXD's order: keys, then what goes, comes, and is only changed. */
export function guestEvents(before: Omit<Guest, "name">, after: Omit<Guest, "name">): GuestEvent[] {
  const timestamp = new Date().toISOString();
  return [
    ...changedKeys(before.config, after.config).map((metadata) => ({ type: "config" as const, timestamp, metadata })),
    ...changedDevices(before.devices, after.devices).map((metadata) => ({
      type: "device" as const,
      timestamp,
      metadata,
    })),
  ];
}

function changedKeys(before: Config, after: Config): Record<string, unknown>[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((key) => isGuestKey(key) && before[key] !== after[key])
    .map((key) => ({ key, old_value: before[key] ?? "", value: after[key] ?? "" }));
}

function changedDevices(before: Devices, after: Devices): Record<string, unknown>[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const changed = names.filter((name) => !sameDevice(before[name], after[name]));
  const isUpdate = (name: string): boolean => {
    const from = before[name], to = after[name];
    if (!from || !to) return false;
    return [...Object.keys(from), ...Object.keys(to)].every((key) => from[key] === to[key] || updatable.test(key));
  };
  const anew = changed.filter((name) => !isUpdate(name));
  const event = (action: string, devices: Devices) => (name: string) => ({ action, config: devices[name], name });
  return [
    ...anew.filter((name) => before[name]).map(event("removed", before)),
    ...anew.filter((name) => after[name]).map(event("added", after)),
    ...changed.filter(isUpdate).map(event("updated", after)),
  ];
}
