import type { ContainerSpec } from "./runtime.ts";

/** The mounts of a container, in their order: the kernel's filesystems, then those of its devices.
 * @param spec Its mounts as the runtime prepared them: sources are mount points of the runtime's own namespace.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts */
export function ociMounts(spec: ContainerSpec): object[] {
  return [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: ["nosuid", "noexec", "nodev", "relatime", "rw"],
    },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=512k"] },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    { destination: "/dev/shm", type: "tmpfs", source: "shm", options: ["nosuid", "nodev", "mode=1777"] },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
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
