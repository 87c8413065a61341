import assert from "node:assert/strict";
import { FakeHost } from "../../host/fake.ts";
import { probe } from "./module.ts";

// What several versions of the tools print without the module, recorded or from their source.
const complaints = {
  "2.3.2, zfs version": "Failed to initialize the libzfs library.\n",
  "2.1.11, zfs version": "zfs_version_kernel() failed: No such file or directory\n",
  "2.1.11, zfs list": "The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.\n",
  "without /dev/zfs":
    "/dev/zfs and /proc/self/mounts are required.\nTry running 'udevadm trigger' and 'mount -t proc proc /proc' as root.\n",
  "no modprobe": "The ZFS modules cannot be auto-loaded.\nTry running 'modprobe zfs' as root to manually load them.\n",
};

for (const [name, stderr] of Object.entries(complaints)) {
  Deno.test(`zfs without its module (${name}): it is loaded, or the package that brings it is named`, async () => {
    let isLoaded = false;
    const answer = (canLoad: boolean) => (argv: readonly string[]) => {
      if (argv[0] === "modprobe") {
        if (!canLoad) {
          return { code: 1, stderr: "modprobe: FATAL: Module zfs not found in directory /lib/modules/6.1.0\n" };
        }
        isLoaded = true;
        return "";
      }
      return isLoaded ? "zfs-2.3.2-2~bpo12+2\nzfs-kmod-2.3.2-2~bpo12+2\n" : { code: 1, stderr };
    };
    const missing = new FakeHost(answer(false));
    assert.deepEqual(await probe(missing), {
      missing: 'The kernel module "zfs" cannot be loaded (Debian package zfs-dkms): ' +
        "modprobe: FATAL: Module zfs not found in directory /lib/modules/6.1.0",
    });
    const there = new FakeHost(answer(true));
    assert.deepEqual(await probe(there), { version: "2.3.2-2~bpo12+2" });
    assert.deepEqual(there.seen, ["zfs version", "modprobe -b zfs", "zfs version"]);
  });
}

Deno.test("zfs that fails otherwise says how; without tools their package is named", async () => {
  const host = new FakeHost(() => ({ code: 1, stderr: "internal error: out of memory\n" }));
  assert.match(JSON.stringify(await probe(host)), /zfs version.*out of memory/);
  assert.deepEqual(await probe(new FakeHost(undefined, { missing: ["zpool"] })), {
    missing: '"zpool" is not installed (Debian package zfsutils-linux)',
  });
});
