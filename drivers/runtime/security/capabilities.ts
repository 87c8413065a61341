import { readFileSync } from "node:fs";

/** In order of their numbers. @see linux/capability.h */
const linuxCapabilities = [
  ...["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID"],
  ...["SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"],
  ...["IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"],
  ...["SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"],
  ...["LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"],
  ...["WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"],
].map((name) => `CAP_${name}`);
/** All that the kernel supports, up to the last of the list above. */
const every = linuxCapabilities.slice(0, Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8")) + 1);
/** A process cannot pass on capabilities outside its own bounding set. */
const bounding = (() => {
  const status = readFileSync("/proc/self/status", "utf8");
  const held = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  return every.filter((_, number) => (held >> BigInt(number)) & 1n);
})();
/** Capabilities that LXD's privileged containers lack on a host without stacked AppArmor profiles (`lxc.cap.drop` of driver_lxc.go). BPF and PERFMON
 * are not dropped: a privileged container has SYS_ADMIN, so that would forbid nothing. @see capabilities(7) */
const droppedWhenPrivileged = new Set(
  ["SYS_TIME", "SYS_MODULE", "SYS_RAWIO", "MAC_ADMIN", "MAC_OVERRIDE"].map((name) => `CAP_${name}`),
);

/** @returns The capabilities of a container's root. An unprivileged container has all: they reach no further than its user namespace, and the
 * kernel gives the first process of a new one a full set, bounding set included, whatever its creator has. @see user_namespaces(7) */
export function containerCapabilities(privileged: boolean): readonly string[] {
  return privileged ? bounding.filter((name) => !droppedWhenPrivileged.has(name)) : every;
}
