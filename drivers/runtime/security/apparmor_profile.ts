/** The AppArmor profile of a container, as text for apparmor_parser(8). It forbids what LXD forbids its containers, too.
 *
 * An unprivileged container is kept from the host by its user namespace; the profile is a second barrier, and the container may mount what the kernel
 * allows. A privileged one is root among the host's files in /proc and /sys, and mounts with the host's privileges; its profile forbids what neither
 * capabilities nor read-only mounts can, since it could mount them anew.
 * @see apparmor.d(5) */

export interface ProfileOptions {
  readonly privileged: boolean;
  /** Whether containers may run in it. */
  readonly nesting: boolean;
  /** The policy namespace that the container loads its own profiles into; absent when it cannot have one. */
  readonly policyNamespace?: string;
}

/** Files of the whole host, forbidden to every container. */
const forbidden = [
  ...["/proc/acpi/**", "/proc/kcore", "/proc/sysrq-trigger", "/proc/sys/fs/binfmt_misc/**"].map((path) =>
    `${path} rwklx`
  ),
  ...["/sys/firmware/efi/efivars/**", "/sys/kernel/config/**", "/sys/kernel/debug/**", "/sys/kernel/tracing/**"]
    .map((path) => `${path} rwklx`),
];

/** Where systemd builds the root of a confined service from all mounts, before it becomes the service's "/". */
const serviceRoots = ["/run/systemd/unit-root/", "/run/systemd/mount-rootfs/"];

/** Settings that are not namespaced. */
const hostSettings = [
  "/proc/bus/**",
  "/proc/sys/{abi,debug,dev,fs,user,vm}/**",
  ...outside("/proc/sys/kernel/", ["hostname", "domainname", "msg", "sem", "shm"]),
  "/sys/{block,bus,dev,firmware,hypervisor,kernel,module,power}/**",
  ...outside("/sys/devices/", ["virtual/net/"]),
  ...outside("/sys/fs/", ["cgroup/", "fuse/"]),
];

/** Flags of a mount that is created or made writable: all but "ro". */
const writable = "rw, remount, bind, nosuid, nodev, noexec, noatime, relatime, nodiratime, strictatime, silent";

/** What containers within a container do, too. Allowing rules cannot recognise a bind mount by its flags, so what a privileged container may not do
 * is denied: denying rules take precedence. */
const mounts = ["mount", "remount", "umount"];

/** Keeps the kernel's filesystems at their places: the rules for files apply to those paths. */
const deniedToPrivileged = [
  // These are mounted already.
  ...["binfmt_misc", "bpf", "configfs", "debugfs", "efivarfs", "fusectl", "pstore", "securityfs", "tracefs"]
    .map((type) => `mount fstype=${type}`),
  ...[["proc", "/proc/"], ["sysfs", "/sys/"]].flatMap(([type, place]) => [
    ...except(place!).map((target) => `mount fstype=${type} -> ${target}`),
    `mount ${place!.slice(0, -1)}{,/**} -> /**`,
    `mount options in (${writable}) -> ${place}**`,
  ]),
  "mount /dev/.lxc{,/**} -> /**",
  // The kernel's filesystems are below these.
  ...except("/").flatMap((target) =>
    ["/", ...serviceRoots.map((root) => `${root}**`)].map((source) => `mount ${source} -> ${target}`)
  ),
  ...serviceRoots.map((root) => `${root}{,**/}{proc,sys}/** wklx`),
  ...hostSettings.map((path) => `${path} wklx`),
];

/** @param place Path of a directory, ending with "/". @returns Patterns of all directories except this one and those in a service's root. */
function except(place: string): string[] {
  const allowed = [place, ...serviceRoots].filter((path) => path !== "/");
  const above = allowed.flatMap((path) =>
    path.split("/").slice(1, -1).map((_, depth, parts) => `/${parts.slice(0, depth).join("/")}${depth > 0 ? "/" : ""}`)
  );
  return [
    ...outside("/", allowed.map((path) => path.slice(1))),
    ...new Set(above.filter((path) => path !== place)),
    ...(place === "/" ? [] : [`${place}?**`]),
  ];
}

/** @returns Patterns of the paths below a directory that do not begin with any of `allowed`. */
function outside(directory: string, allowed: readonly string[]): string[] {
  const beginnings = new Set(allowed.flatMap((path) => Array.from(path, (_, length) => path.slice(0, length))));
  return [...beginnings].map((beginning) => {
    const next = new Set(allowed.filter((path) => path.startsWith(beginning)).map((path) => path[beginning.length]));
    return `${directory}${beginning}[^${[...next].join("")}]**`;
  });
}

/** @param name The profile's name; it must need no quoting. */
export function profileText(name: string, { privileged, nesting, policyNamespace }: ProfileOptions): string {
  const isHeld = privileged && !nesting;
  const rules = [
    ...["capability", "dbus", "file"],
    ...["signal (receive)", "signal peer=@{profile_name}"],
    ...["ptrace (readby, tracedby)", "ptrace peer=@{profile_name}"],
    ...mounts,
    ...(isHeld ? deniedToPrivileged.map((rule) => `deny ${rule}`) : ["pivot_root"]),
    ...(privileged && nesting ? ["signal", "ptrace"] : []),
    ...forbidden.map((rule) => `deny ${rule}`),
    ...(policyNamespace === undefined ? [] : [
      `change_profile -> ":${policyNamespace}:*"`,
      `change_profile -> ":${policyNamespace}://*"`,
      `signal peer=":${policyNamespace}://**"`,
      `ptrace peer=":${policyNamespace}://**"`,
    ]),
  ];
  const lines = rules.map((rule) => `  ${rule},\n`).join("");
  return `profile "${name}" flags=(attach_disconnected,mediate_deleted) {\n${lines}}\n`;
}
