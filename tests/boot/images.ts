/** The images that the boot tests use, with the commands for each init. */

export interface BootImage {
  /** Name in scripts/make_image.sh. */
  readonly name: string;
  readonly init: "systemd" | "sysvinit" | "openrc" | "runit" | "busybox";
  /** Units that fail in lido as in LXD with the same image on the same host. Compared with LXD 5.0.2-5+deb12u6 (LXC 5.0.2, lxcfs 5.0.3) on hybrid
   * cgroups and Linux 6.18: the state of every unit was the same in both, but for the mount units of LXD's own mounts. The same units fail with
   * cgroup2 alone, on the host and in the test guest (Linux 6.1 with AppArmor). */
  readonly failedUnits: readonly string[];
}

export const images: readonly BootImage[] = [
  { name: "busybox", init: "busybox", failedUnits: [] },
  { name: "debian/12", init: "systemd", failedUnits: [] },
  // The kernel refuses audit's netlink socket outside the first user namespace. The unit has a condition for that in later releases only.
  { name: "debian/11", init: "systemd", failedUnits: ["systemd-journald-audit.socket"] },
  // The unit's condition is a capability, which root of a user namespace has; it fails because the image has no kmod.
  { name: "debian/13", init: "systemd", failedUnits: ["systemd-modules-load.service"] },
  { name: "debian/12-sysvinit", init: "sysvinit", failedUnits: [] },
  { name: "debian/12-openrc", init: "openrc", failedUnits: [] },
  { name: "debian/12-runit", init: "runit", failedUnits: [] },
];

/** Shell script for each init that returns when the system is up; it polls where the init has no event for that. */
export const untilBooted: Readonly<Record<BootImage["init"], string>> = {
  systemd: "until [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done; systemctl is-system-running --wait || :",
  // inittab starts its gettys after the runlevel's scripts have ended.
  sysvinit: "until pgrep -x getty >/dev/null; do sleep 0.1; done",
  openrc: "until pgrep -x getty >/dev/null; do sleep 0.1; done",
  runit: "until pgrep -x runsvdir >/dev/null; do sleep 0.1; done",
  busybox: "until pidof sleep >/dev/null; do sleep 0.1; done",
};
