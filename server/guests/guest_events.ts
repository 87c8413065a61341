import type { Config, Devices } from "../../api/types.ts";
import { sameDevice } from "../config/devices.ts";
import { type Guest, isGuestKey } from "./guest_api.ts";

/** A change of an instance, as its guest is told of it. @see https://documentation.ubuntu.com/lxd/en/latest/dev-lxd/ */
export interface GuestEvent {
  readonly type: "config" | "device";
  readonly timestamp: string;
  readonly metadata: Record<string, unknown>;
}

/** Keys whose change updates a device; a change of any other key removes and adds it. */
const updatable = /^(size|boot\.priority|limits\..*)$/;

/** @returns The guest's events for a change of an instance, in LXD's order: keys, then removed, added and updated devices. */
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
