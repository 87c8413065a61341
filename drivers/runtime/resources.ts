/** What a privileged container may open: terminals, the nodes of memory (null, zero, full, random, urandom), fuse and tun. It may make any
 * node, as unpacking a system needs. LXD's list. */
const privilegedDevices = [
  ...["b", "c"].map((type) => ({ allow: true, type, access: "m" })),
  { allow: true, type: "c", major: 136, access: "rwm" },
  ...[[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 1], [5, 2], [10, 229], [10, 200]].map(([major, minor]) => ({
    allow: true,
    type: "c",
    major,
    minor,
    access: "rwm",
  })),
];

/** Allowed devices, which the runtime writes into the cgroups; limits are written by `limits.ts`.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups */
export function ociResources(privileged: boolean): object {
  // Nobody in a user namespace can make a device node; root on the host's ids could.
  return privileged ? { devices: [{ allow: false, access: "rwm" }, ...privilegedDevices] } : {};
}
