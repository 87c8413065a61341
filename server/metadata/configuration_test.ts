import assert from "node:assert/strict";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { configurationMetadata } from "./configuration.ts";

Deno.test("configurationMetadata() tells keys, types and values of what is checked", () => {
  const { configs } = configurationMetadata(driverKinds.values());
  const key = (thing: string, group: string, name: string) =>
    configs[thing]?.[group]?.keys.find((one) => Object.hasOwn(one, name))?.[name];
  assert.deepEqual(key("instance", "boot", "boot.autostart")?.values, ["true", "false"]);
  assert.equal(key("instance", "limits", "limits.processes")?.type, "integer");
  assert.equal(key("instance", "limits", "limits.memory")?.type, "string");
  assert.deepEqual(key("instance", "limits", "limits.memory.enforce")?.values, ["soft", "hard"]);
  assert.equal(configs.instance?.volatile, undefined);
  assert.deepEqual(key("storage-lvm", "volume-conf", "block.filesystem")?.values, ["ext4", "xfs", "btrfs"]);
  assert.match(key("storage-dir", "pool-conf", "source")!.shortdesc, /directory/);
  assert.equal(key("storage-dir", "pool-conf", "btrfs.mount_options"), undefined);
  assert.ok(key("device-disk", "device-conf", "propagation")?.values?.includes("rslave"));
  // Any word may be one of these, "true" and "no" too.
  for (const name of ["core.https_address", "core.trust_password"]) {
    assert.equal(key("server", "core", name)?.type, "string", name);
  }
  assert.equal(key("instance", "security", "security.syscalls.deny")?.type, "string");
  assert.equal(key("storage-lvm", "pool-conf", "lvm.vg_name")?.type, "string");
  assert.equal(key("storage-zfs", "pool-conf", "zfs.clone_copy")?.type, "bool");
  assert.equal(key("instance", "limits", "limits.cpu.priority")?.type, "integer");
});
