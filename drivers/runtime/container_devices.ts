import type { ContainerSpec, DeviceRule } from "./runtime.ts";

/** What a container may open: terminals, the memory devices (null, zero, full, random, urandom), fuse and tun. It may create any node, for unpacking
 * a system and for overlay's whiteouts. This is LXD's list for privileged containers; LXD has none for unprivileged ones. */
export const containerDevices: readonly DeviceRule[] = [
  { type: "c", access: "m" },
  { type: "b", access: "m" },
  { type: "c", major: 136, access: "rwm" },
  ...[[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 1], [5, 2], [10, 229], [10, 200]].map(([major, minor]) => ({
    type: "c" as const,
    major: major!,
    minor: minor!,
    access: "rwm",
  })),
];

/** The devices that this container may open. */
export function devicesOf({ devices = [] }: Pick<ContainerSpec, "devices">): readonly DeviceRule[] {
  return [...containerDevices, ...devices];
}
