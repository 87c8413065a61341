import { readFileSync } from "node:fs";
import type { CommandSpec, ContainerSpec, IdRange } from "./runtime.ts";
import { seccompPolicy } from "./seccomp.ts";

/** The OCI configuration of a system container: its own init, its own cgroup namespace, what LXC gives it and no more.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md */

/** In the order of their numbers. @see linux/capability.h */
const linuxCapabilities = [
  ...["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID"],
  ...["SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"],
  ...["IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"],
  ...["SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"],
  ...["LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"],
  ...["WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"],
].map((name) => `CAP_${name}`);
/** Those this host lets us have: nobody can give away what is not in its own bounding set. */
const capabilities = (() => {
  const bounding = BigInt(
    `0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`,
  );
  return linuxCapabilities.filter((_, number) => (bounding >> BigInt(number)) & 1n);
})();
/** Within a user namespace capabilities reach no further than the namespace. A privileged container has none: LXC takes these away. */
const droppedWhenPrivileged = new Set(
  ["MAC_ADMIN", "MAC_OVERRIDE", "SYS_TIME", "SYS_MODULE", "SYS_RAWIO", "BPF", "PERFMON"].map((name) => `CAP_${name}`),
);

/** @param mounts As the runtime prepared them: sources are mount points of its own namespace. */
export function ociConfig(
  spec: ContainerSpec,
  options: { rootfs: string; cgroupsPath: string; unified: boolean },
): object {
  const privileged = spec.idmap === undefined;
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      ...identity({ uid: 0, gid: 0 }, privileged),
      args: spec.init ?? ["/sbin/init"],
      env: variables({
        PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ...spec.environment,
        container: "lxc",
      }),
      cwd: "/",
    },
    root: { path: options.rootfs },
    hostname: spec.name,
    mounts: [
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
    ],
    linux: {
      ...(spec.idmap ? { uidMappings: mappings(spec.idmap.uid), gidMappings: mappings(spec.idmap.gid) } : {}),
      namespaces: ["pid", "network", "ipc", "uts", "mount", "cgroup", ...(privileged ? [] : ["user"])].map((type) => ({
        type,
      })),
      cgroupsPath: options.cgroupsPath,
      resources: resources(spec, privileged),
      seccomp: seccompPolicy(),
      ...(privileged
        ? {
          maskedPaths: ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/sys/kernel/debug"],
          readonlyPaths: ["/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
        }
        : {}),
    },
  };
}

/** `process.json` of a command that enters the container. @see crun(1), exec --process */
export function ociProcess(
  command: CommandSpec,
  options: { privileged: boolean; terminal?: { width: number; height: number } },
): object {
  return {
    terminal: options.terminal !== undefined,
    ...(options.terminal ? { consoleSize: options.terminal } : {}),
    ...identity(command, options.privileged),
    args: command.argv,
    env: variables(command.environment),
    cwd: command.cwd,
  };
}

function identity(command: { uid: number; gid: number; groups?: readonly number[] }, privileged: boolean): object {
  const all = privileged ? capabilities.filter((name) => !droppedWhenPrivileged.has(name)) : capabilities;
  const held = command.uid === 0 ? all : [];
  return {
    user: { uid: command.uid, gid: command.gid, additionalGids: command.groups ?? [] },
    capabilities: { bounding: all, effective: held, permitted: held, inheritable: [], ambient: [] },
    noNewPrivileges: false,
  };
}

function resources(spec: ContainerSpec, privileged: boolean): object {
  const { memoryBytes, processes, cpus } = spec.limits ?? {};
  return {
    ...(memoryBytes === undefined ? {} : { memory: { limit: Number(memoryBytes) } }),
    ...(processes === undefined ? {} : { pids: { limit: processes } }),
    ...(cpus === undefined ? {} : { cpu: { cpus } }),
    // Nobody in a user namespace can make a device node; root on the host's ids could.
    ...(privileged
      ? {
        devices: [{ allow: false, access: "rwm" }, ...["c", "b"].map((type) => ({ allow: true, type, access: "m" }))],
      }
      : {}),
  };
}

function variables(environment: Readonly<Record<string, string>>): string[] {
  return Object.entries(environment).map(([name, value]) => `${name}=${value}`);
}

function mappings(ranges: readonly IdRange[]): object[] {
  return ranges.map(({ container, host, count }) => ({ containerID: container, hostID: host, size: count }));
}
