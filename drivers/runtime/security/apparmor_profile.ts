/** The AppArmor profile of a container, as text for apparmor_parser(8). What it forbids is what a container of LXD's may not do either.
 *
 * An unprivileged container is kept from the host by its user namespace, and the profile is a second wall: it mounts what the kernel lets it mount. A
 * privileged one is root among the host's files of /proc and /sys, and mounts with the host's own right; for it the profile says what neither
 * capabilities nor read-only mounts can, since it could mount them anew.
 * @see apparmor.d(5) */

export interface ProfileOptions {
  readonly privileged: boolean;
  /** Whether containers may be run in it. */
  readonly nesting: boolean;
  /** The policy namespace that the container loads its own profiles into; absent when it cannot have any. */
  readonly policyNamespace?: string;
}

/** Of the whole host, whoever asks. */
const forbidden = [
  ...["/proc/acpi/**", "/proc/kcore", "/proc/sysrq-trigger", "/proc/sys/fs/binfmt_misc/**"].map((path) =>
    `${path} rwklx`
  ),
  ...["/sys/firmware/efi/efivars/**", "/sys/kernel/config/**", "/sys/kernel/debug/**", "/sys/kernel/tracing/**"]
    .map((path) => `${path} rwklx`),
];

/** Where systemd makes the root of a service that it confines, out of all that is mounted, before it becomes the service's "/". */
const serviceRoots = ["/run/systemd/unit-root/", "/run/systemd/mount-rootfs/"];

/** Settings that no namespace has of its own. */
const hostSettings = [
  "/proc/bus/**",
  "/proc/sys/{abi,debug,dev,fs,user,vm}/**",
  ...outside("/proc/sys/kernel/", ["hostname", "domainname", "msg", "sem", "shm"]),
  "/sys/{block,bus,dev,firmware,hypervisor,kernel,module,power}/**",
  ...outside("/sys/devices/", ["virtual/net/"]),
  ...outside("/sys/fs/", ["cgroup/", "fuse/"]),
];

/** Flags of a mount that is made or changed to be writable: all but "ro". */
const writable = "rw, remount, bind, nosuid, nodev, noexec, noatime, relatime, nodiratime, strictatime, silent";

/** What containers within a container do, too. Rules that allow cannot tell a bind mount by its flags; so what a privileged container may not do is
 * denied, which comes before. */
const mounts = ["mount", "remount", "umount"];

/** The kernel's filesystems stay where they are, for there the rules for files hold. */
const deniedToPrivileged = [
  // They are there already.
  ...["binfmt_misc", "bpf", "configfs", "debugfs", "efivarfs", "fusectl", "pstore", "securityfs", "tracefs"]
    .map((type) => `mount fstype=${type}`),
  ...[["proc", "/proc/"], ["sysfs", "/sys/"]].flatMap(([type, place]) => [
    ...except(place!).map((target) => `mount fstype=${type} -> ${target}`),
    `mount ${place!.slice(0, -1)}{,/**} -> /**`,
    `mount options in (${writable}) -> ${place}**`,
  ]),
  "mount /dev/.lxc{,/**} -> /**",
  // They are below these.
  ...except("/").flatMap((target) =>
    ["/", ...serviceRoots.map((root) => `${root}**`)].map((source) => `mount ${source} -> ${target}`)
  ),
  ...serviceRoots.map((root) => `${root}{,**/}{proc,sys}/** wklx`),
  ...hostSettings.map((path) => `${path} wklx`),
];

/** @param place Path of a directory, with "/" at its end. @returns Patterns of all directories but this one and those in a root of a service. */
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

/** @returns Patterns of what is below a directory and does not begin with any of `allowed`. */
function outside(directory: string, allowed: readonly string[]): string[] {
  const beginnings = new Set(allowed.flatMap((path) => Array.from(path, (_, length) => path.slice(0, length))));
  return [...beginnings].map((beginning) => {
    const next = new Set(allowed.filter((path) => path.startsWith(beginning)).map((path) => path[beginning.length]));
    return `${directory}${beginning}[^${[...next].join("")}]**`;
  });
}

/** @param name Of the profile; it must need no quoting. */
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
