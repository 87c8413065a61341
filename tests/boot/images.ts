/** The images that the stories boot, and how each is asked. */

export interface BootImage {
  /** As scripts/make_image.sh has it. */
  readonly name: string;
  readonly init: "systemd" | "sysvinit" | "openrc" | "runit" | "busybox";
  /** Units that fail here as they fail on LXD with the same image on the same host. Compared with LXD 5.0.2-5+deb12u6 (LXC 5.0.2, lxcfs 5.0.3) on
   * hybrid cgroups and Linux 6.18: the state of every unit was the same on both, but for the mount units of LXD's own mounts.
   * The same fail where there is cgroup2 alone, here and in the guest (Linux 6.1 with AppArmor). */
  readonly failedUnits: readonly string[];
}

export const images: readonly BootImage[] = [
  { name: "busybox", init: "busybox", failedUnits: [] },
  { name: "debian/12", init: "systemd", failedUnits: [] },
  // Audit is the host's: its netlink socket is refused outside the first user namespace. Later releases have a condition for that.
  { name: "debian/11", init: "systemd", failedUnits: ["systemd-journald-audit.socket"] },
  // Its condition is a capability, which root of a user namespace has; with no kmod in the image, it fails.
  { name: "debian/13", init: "systemd", failedUnits: ["systemd-modules-load.service"] },
  { name: "debian/12-sysvinit", init: "sysvinit", failedUnits: [] },
  { name: "debian/12-openrc", init: "openrc", failedUnits: [] },
  { name: "debian/12-runit", init: "runit", failedUnits: [] },
];

/** Shell of each init that returns when the system is up; what it has no event for is looked at until it is so. */
export const untilBooted: Readonly<Record<BootImage["init"], string>> = {
  systemd: "until [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done; systemctl is-system-running --wait || :",
  // The table's terminals come after what the runlevel waits for.
  sysvinit: "until pgrep -x getty >/dev/null; do sleep 0.1; done",
  openrc: "until pgrep -x getty >/dev/null; do sleep 0.1; done",
  runit: "until pgrep -x runsvdir >/dev/null; do sleep 0.1; done",
  busybox: "until pidof sleep >/dev/null; do sleep 0.1; done",
};
