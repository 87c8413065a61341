import assert from "node:assert/strict";
import { profileText } from "./apparmor_profile.ts";

/** Matches AppArmor's patterns, as far as they are used here. @see apparmor.d(5), "Globbing" */
function matches(pattern: string, path: string): boolean {
  const source = pattern.replace(/[.+()|]/g, "\\$&").replace(
    /\{([^}]*)\}/g,
    (_, words) => `(${words.replaceAll(",", "|")})`,
  )
    .replaceAll("**", "\0").replaceAll("*", "[^/]*").replaceAll("?", "[^/]").replaceAll("\0", ".*");
  return new RegExp(`^${source}$`).test(path);
}

const rules = (options: Parameters<typeof profileText>[1], beginning: string) =>
  profileText("lido-0_c1", options).split("\n").map((line) => line.trim().replace(/,$/, ""))
    .filter((line) => line.startsWith(beginning)).map((line) => line.slice(beginning.length));

Deno.test("a privileged container mounts /proc at its place, or in the root of a service, and nowhere else", () => {
  const denied = rules({ privileged: true, nesting: false }, "deny mount fstype=proc -> ");
  const isDenied = (path: string) => denied.some((pattern) => matches(pattern, path));
  for (const path of ["/proc/", "/run/systemd/unit-root/proc/", "/run/systemd/mount-rootfs/proc/"]) {
    assert.ok(!isDenied(path), path);
  }
  for (
    const path of [
      "/",
      "/a/",
      "/p/",
      "/pro/",
      "/process/",
      "/proc/x/",
      "/mnt/proc/",
      "/run/",
      "/run/systemd/",
      "/run/systemd/unit/",
    ]
  ) {
    assert.ok(isDenied(path), path);
  }
});

Deno.test("its own names and memory are a privileged container's to set, the host's settings are not", () => {
  const denied = rules({ privileged: true, nesting: false }, "deny ").filter((rule) => rule.endsWith(" wklx"))
    .map((rule) => rule.slice(0, -" wklx".length));
  const isDenied = (path: string) => denied.some((pattern) => matches(pattern, path));
  for (
    const name of [
      "kernel/hostname",
      "kernel/domainname",
      "kernel/shmmax",
      "kernel/sem",
      "kernel/msgmax",
      "net/ipv4/ip_forward",
    ]
  ) {
    assert.ok(!isDenied(`/proc/sys/${name}`), name);
  }
  for (
    const name of [
      "kernel/core_pattern",
      "kernel/modprobe",
      "kernel/sysrq",
      "kernel/hotplug",
      "kernel/random/boot_id",
      "vm/swappiness",
      "fs/file-max",
    ]
  ) {
    assert.ok(isDenied(`/proc/sys/${name}`), name);
  }
  for (const path of ["/sys/fs/cgroup/x", "/sys/devices/virtual/net/eth0/mtu"]) assert.ok(!isDenied(path), path);
  for (
    const path of ["/sys/kernel/uevent_helper", "/sys/module/x/parameters/y", "/sys/devices/system/cpu/cpu1/online"]
  ) {
    assert.ok(isDenied(path), path);
  }
});

Deno.test("the profile of an unprivileged container reaches into its own policy namespace", () => {
  const lines = rules({ privileged: false, nesting: false, policyNamespace: "lido-0_c1" }, "change_profile -> ");
  assert.deepEqual(lines, ['":lido-0_c1:*"', '":lido-0_c1://*"']);
  assert.deepEqual(rules({ privileged: false, nesting: false }, "deny mount"), []);
});
