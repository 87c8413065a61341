import { readFileSync } from "node:fs";

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

/** @returns The names of the capabilities that a container's root has. */
export function containerCapabilities(privileged: boolean): readonly string[] {
  return privileged ? capabilities.filter((name) => !droppedWhenPrivileged.has(name)) : capabilities;
}
