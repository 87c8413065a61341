import { existsSync, lstatSync, statSync } from "node:fs";
import { join } from "node:path";
import type { CgroupLayout } from "../cgroups/cgroup.ts";
import type { ContainerSpec } from "../runtime.ts";

/** What LXD gives a container of its host's nodes and kernel filesystems, where the host has them. systemd's units for them see a mount and are
 * content; to mount them itself is refused to a container. */
const hostPaths = [
  ...["/dev/fuse", "/dev/net/tun"],
  ...["/proc/sys/fs/binfmt_misc", "/sys/firmware/efi/efivars", "/sys/fs/fuse/connections", "/sys/fs/pstore"],
  ...["/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing"],
];

/** Below /proc/sys, of which a privileged container may write to /proc/sys/net alone: the rest is the host's. */
export const readonlySettings = ["abi", "debug", "dev", "fs", "kernel", "user", "vm"].map((name) =>
  `/proc/sys/${name}`
);

const virtualNet = "/sys/devices/virtual/net";

export interface MountSources {
  /** Path of the container's root, where its mounts are made. */
  readonly rootfs: string;
  readonly layout: CgroupLayout;
  /** Path of a file with this start's boot id. */
  readonly bootId: string;
  /** Path of the container's end of its console. */
  readonly console: string;
}

/** No device node in a container's root, or in what is mounted for it, can be opened: its devices are those of its /dev. An option of the mount's own
 * comes after it. crun mounts the root of a privileged one anew, with devices; its own root could do that too. What keeps it from the host's is its cgroup.
 * @param options Of `mountOptionNames`. */
export function withoutDevices(options: readonly string[] = []): readonly string[] {
  return ["nodev", ...options];
}

/** The mounts of a container, in their order: the kernel's filesystems, then those of its devices.
 * @param spec Its mounts as the runtime prepared them: sources are mount points of the runtime's own namespace.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts */
export function ociMounts(spec: ContainerSpec, { rootfs, layout, bootId, console }: MountSources): object[] {
  const isPrivileged = spec.idmap === undefined;
  return [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    // The files are the host's, and a container's own root may write to its network's alone: as LXC's `sys:mixed` for privileged ones.
    {
      destination: "/sys",
      type: "sysfs",
      source: "sysfs",
      options: isPrivileged ? ["nosuid", "noexec", "nodev", "ro"] : [],
    },
    // A part of the mount before, which crun makes read-only when all are made. Its source is a path of the host: no link may lead it elsewhere.
    ...(isPrivileged && !lstatSync(join(rootfs, "sys"), { throwIfNoEntry: false })?.isSymbolicLink()
      ? [{
        destination: virtualNet,
        type: "bind",
        source: join(rootfs, virtualNet),
        options: ["bind", "rw", "nosuid", "noexec", "nodev", "rprivate"],
      }]
      : []),
    // As LXC: with v1 hierarchies the init mounts what it wants; in a v2 world many an init does not know that it has to.
    ...(layout === "unified"
      ? [{
        destination: "/sys/fs/cgroup",
        type: "cgroup",
        source: "cgroup",
        options: ["nosuid", "noexec", "nodev", "relatime", "rw"],
      }]
      : []),
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=512k"] },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    { destination: "/dev/shm", type: "tmpfs", source: "shm", options: ["nosuid", "nodev", "mode=1777"] },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/dev/console", type: "bind", source: console, options: ["bind", "nosuid", "noexec", "rprivate"] },
    ...hostPaths.filter(existsSync).map((path) => ({
      destination: path,
      type: "bind",
      source: path,
      options: [statSync(path).isDirectory() ? "rbind" : "bind", "rprivate"],
    })),
    {
      destination: "/proc/sys/kernel/random/boot_id",
      type: "bind",
      source: bootId,
      options: ["bind", "ro", "nosuid", "nodev", "noexec"],
    },
    ...spec.mounts.map((mount) => ({
      destination: mount.target,
      type: "bind",
      source: mount.source,
      options: [
        mount.recursive === false ? "bind" : "rbind",
        ...(mount.options ?? []),
        mount.propagation ?? "rprivate",
      ],
    })),
  ];
}

/** What mounts a second /proc and /sys that nothing is mounted in: the kernel lets a user namespace within the container mount its own only if
 * it sees one. By a hook, since crun mounts them at their usual places alone; it runs in the container's namespaces, in the bundle.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md#createcontainer-hooks */
export function ociNestingHooks(rootfs: string): object[] {
  // crun writes the container's state to a hook and fails the start when the hook has ended without reading it, as mount(8) may.
  const script = `while read -r _; do :; done
mount -o X-mount.mkdir -t proc proc "$1/dev/.lxc/proc" && mount -o X-mount.mkdir -t sysfs sysfs "$1/dev/.lxc/sys"`;
  return [{
    path: "/bin/sh",
    args: ["sh", "-c", script, "sh", rootfs],
    env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
  }];
}
