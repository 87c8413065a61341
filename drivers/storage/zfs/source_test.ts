import assert from "node:assert/strict";
import type { Pool } from "../driver.ts";
import { checkDatasetName, checkPoolName, sourceOf } from "./source.ts";

const pool = (source?: string): Pool => ({
  name: "p",
  config: source === undefined ? {} : { source },
  root: "/var/lib/lido/storage-pools/p",
  diskFile: "/var/lib/lido/disks/p.img",
});

Deno.test("sourceOf() knows a file of ours, devices, and what is there", () => {
  assert.deepEqual(sourceOf(pool()), { is: "file" });
  assert.deepEqual(sourceOf(pool("")), { is: "file" });
  assert.deepEqual(sourceOf(pool("/var/lib/lido/disks/p.img")), { is: "file" });
  assert.deepEqual(sourceOf(pool("tank")), { is: "existing", dataset: "tank" });
  assert.deepEqual(sourceOf(pool("tank/lido")), { is: "existing", dataset: "tank/lido" });
  const devices = (source: string) => {
    const found = sourceOf(pool(source));
    return found.is === "devices" ? [found.devices, found.vdevs] : found;
  };
  assert.deepEqual(devices("/dev/a"), [["/dev/a"], ["/dev/a"]]);
  assert.deepEqual(devices("/dev/a,/dev/b"), [["/dev/a", "/dev/b"], ["/dev/a", "/dev/b"]]);
  assert.deepEqual(devices("stripe=/dev/a,/dev/b"), [["/dev/a", "/dev/b"], ["/dev/a", "/dev/b"]]);
  assert.deepEqual(devices("mirror=/dev/a,/dev/b"), [["/dev/a", "/dev/b"], ["mirror", "/dev/a", "/dev/b"]]);
  assert.deepEqual(devices("raidz1=/dev/a,/dev/b,/dev/c"), [
    ["/dev/a", "/dev/b", "/dev/c"],
    ["raidz1", "/dev/a", "/dev/b", "/dev/c"],
  ]);
  // "=" may be in a device's name.
  assert.deepEqual(devices("/dev/disk/by-id/x=1"), [["/dev/disk/by-id/x=1"], ["/dev/disk/by-id/x=1"]]);
});

Deno.test("sourceOf() says what is wrong with a vdev specification", () => {
  const refused: [string, RegExp][] = [
    ["raidz9=/dev/a,/dev/b", /Unsupported ZFS vdev type "raidz9": stripe, mirror, raidz1, raidz2, raidz3 are allowed/],
    ["toString=/dev/a", /Unsupported ZFS vdev type "toString"/],
    ["mirror=/dev/a", /mirror needs 2 devices, 1 are given/],
    ["raidz2=/dev/a,/dev/b", /raidz2 needs 3 devices, 2 are given/],
    ["mirror=/dev/a,/dev/a", /"\/dev\/a" is named twice/],
    ["mirror=sda,sdb", /Source path 'sda' isn't absolute/],
    ["/dev/a,sdb", /Source path 'sdb' isn't absolute/],
    ["mirror=/dev/a,", /Source path '' isn't absolute/],
    ["mirror=", /Source path '' isn't absolute/],
  ];
  for (const [source, text] of refused) assert.throws(() => sourceOf(pool(source)), text);
});

Deno.test("names that ZFS does not have are refused before it is asked", () => {
  for (const name of ["tank", "t", "Tank-2.old:x", "logs", "c"]) checkPoolName(name);
  for (
    const name of ["", "1tank", "mirror", "mirror2", "raidz", "draid1", "spare", "log", "c0", "a b", "a@b", "a+b", "-x"]
  ) {
    assert.throws(() => checkPoolName(name), /Invalid ZFS pool name/, name);
  }
  for (const name of ["tank", "tank/lido", "tank/a/b.c"]) checkDatasetName(name);
  for (const name of ["tank/", "tank//a", "/tank", "tank/a@b", "tank/..", "tank/a b"]) {
    assert.throws(() => checkDatasetName(name), /Invalid ZFS (pool|dataset) name/, name);
  }
});
