import { existsSync, lstatSync, statSync } from "node:fs";
import { join } from "node:path";
import type { CgroupLayout } from "../cgroups/cgroup.ts";
import type { ContainerSpec } from "../runtime.ts";

/** The host's nodes and kernel filesystems that LXD gives a container, if the host has them. systemd's mount units for them find a mount and succeed;
 * a container may not mount them itself. */
const hostPaths = [
  ...["/dev/fuse", "/dev/net/tun"],
  ...["/proc/sys/fs/binfmt_misc", "/sys/firmware/efi/efivars", "/sys/fs/fuse/connections", "/sys/fs/pstore"],
  ...["/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing"],
];

/** Parts of /proc/sys that are read-only in a privileged container, since they are the host's: it may write to /proc/sys/net alone. */
export const readonlySettings = ["abi", "debug", "dev", "fs", "kernel", "user", "vm"].map((name) =>
  `/proc/sys/${name}`
);

const virtualNet = "/sys/devices/virtual/net";

export interface MountSources {
  /** Path of the container's root; its mounts are made there. */
  readonly rootfs: string;
  readonly layout: CgroupLayout;
  /** Path of a file with this start's boot id. */
  readonly bootId: string;
  /** Path of the container's end of its console. */
  readonly console: string;
}

/** Adds "nodev": device nodes in a container's root and mounts cannot be opened; its devices are those of its /dev. A mount's own options come later
 * and win. crun remounts a privileged container's root with devices, and its root user could do so, too; its cgroup keeps it from the host's devices.
 * @param options Of `mountOptionNames`. */
export function withoutDevices(options: readonly string[] = []): readonly string[] {
  return ["nodev", ...options];
}

/** The mounts of a container in order: the kernel's filesystems, then those of its devices.
 * @param spec Its mounts as the runtime prepared them: sources are mount points in the runtime's mount namespace.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts */
export function ociMounts(spec: ContainerSpec, { rootfs, layout, bootId, console }: MountSources): object[] {
  const isPrivileged = spec.idmap === undefined;
  return [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    // The files are the host's; the container's root may write to those of its own network alone, as LXC's `sys:mixed` for privileged containers.
    {
      destination: "/sys",
      type: "sysfs",
      source: "sysfs",
      options: isPrivileged ? ["nosuid", "noexec", "nodev", "ro"] : [],
    },
    // A part of the mount before, which crun makes read-only after all are made. Its source is a host path: no link may lead it elsewhere.
    ...(isPrivileged && !lstatSync(join(rootfs, "sys"), { throwIfNoEntry: false })?.isSymbolicLink()
      ? [{
        destination: virtualNet,
        type: "bind",
        source: join(rootfs, virtualNet),
        options: ["bind", "rw", "nosuid", "noexec", "nodev", "rprivate"],
      }]
      : []),
    // As LXC: with v1 hierarchies the init mounts what it wants; on v2 many inits do not know that they must.
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

/** A hook that mounts a second /proc and /sys without anything mounted over them: the kernel lets a user namespace in the container mount its own
 * only if it sees such ones. A hook, because crun mounts them at their usual places only; it runs in the container's namespaces, in the bundle.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md#createcontainer-hooks */
export function ociNestingHooks(rootfs: string): object[] {
  // crun writes the container's state to the hook and fails the start if the hook ends without reading it, as mount(8) may.
  const script = `while read -r _; do :; done
mount -o X-mount.mkdir -t proc proc "$1/dev/.lxc/proc" && mount -o X-mount.mkdir -t sysfs sysfs "$1/dev/.lxc/sys"`;
  return [{
    path: "/bin/sh",
    args: ["sh", "-c", script, "sh", rootfs],
    env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
  }];
}
