import assert from "node:assert/strict";
import { checkDevices, checkExpandedDevices, disksOf, rootDisk, sameDevice } from "./devices.ts";

const disk = (options: Record<string, string>) => ({ type: "disk", ...options });

for (
  const [title, device, expected] of [
    ["nothing set", disk({}), 'Disk entry is missing the required "source" or "path" property'],
    ["no source", disk({ path: "/mnt" }), 'Disk entry is missing the required "source" or "path" property'],
    ["an empty path", disk({ path: "", source: "/srv" }), "Disk entry is missing the required"],
    ["a relative path", disk({ path: "mnt", source: "/srv" }), 'Must be an absolute path: "mnt"'],
    ["a root with a source", disk({ path: "/", source: "/srv" }), 'Root disk entry may not have a "source"'],
    ["a root by another spelling", disk({ path: "/../", source: "/srv" }), 'Root disk entry may not have a "source"'],
    ["a root without a pool", disk({ path: "/" }), 'Root disk entry must have a "pool" property set'],
    ["a relative host path", disk({ path: "/mnt", source: "srv" }), "Source path must be absolute for local sources"],
    ["an absolute volume", disk({ path: "/m", pool: "p", source: "/v" }), "Storage volumes cannot be specified as"],
    ["a volume that climbs", disk({ path: "/m", pool: "p", source: "v/../w" }), "Not a path within a volume"],
    ["a volume without a path", disk({ pool: "p", source: "v" }), "Custom filesystem volumes require a path"],
    ["shift on a volume", disk({ path: "/m", pool: "p", source: "v", shift: "true" }), 'The "shift" property cannot'],
    ["recursive on a volume", disk({ path: "/m", pool: "p", source: "v", recursive: "1" }), "The recursive option is"],
    [
      "a size on a bind",
      disk({ path: "/m", source: "/srv", size: "1GiB" }),
      "Only the root disk may have a size quota",
    ],
    ["an unknown option", disk({ path: "/m", source: "/srv", foo: "x" }), 'Invalid device option "foo"'],
    ["a bad boolean", disk({ path: "/m", source: "/srv", readonly: "foo" }), 'option "readonly": Invalid value for a'],
    [
      "a bad propagation",
      disk({ path: "/m", source: "/srv", propagation: "z" }),
      'option "propagation": Invalid value',
    ],
    [
      "an option of a filesystem",
      disk({ path: "/m", source: "/srv", "raw.mount.options": "nosuid,uid=0" }),
      'option "raw.mount.options": Cannot apply "uid=0" to what is mounted already (not one of [ro rw nosuid ',
    ],
    ["another type", { type: "nic" }, 'Failed loading device "a": Unsupported device type'],
    ["no type", {}, 'Failed loading device "a": Unsupported device type'],
  ] as const
) {
  Deno.test(`checkDevices() refuses ${title}`, () => {
    assert.throws(() => checkDevices({ a: device as Record<string, string> }), (error: Error) => {
      assert.ok(error.message.startsWith('Invalid devices: Device validation failed for "a": '), error.message);
      return error.message.includes(expected);
    });
  });
}

Deno.test("checkDevices() refuses two devices at one path, however it is spelled", () => {
  assert.throws(
    () => checkDevices({ a: disk({ path: "/mnt/", source: "/x" }), b: disk({ path: "/y/../mnt", source: "/z" }) }),
    /Device validation failed for "a": More than one disk device uses the same path "\/mnt"/,
  );
});

Deno.test("checkDevices() refuses a bad device name", () => {
  assert.throws(() => checkDevices({ "a b": { type: "none" } }), /Name can only contain alphanumeric, forward slash/);
});

Deno.test("checkExpandedDevices() refuses a second root and a missing one", () => {
  const root = disk({ path: "/", pool: "p" });
  assert.throws(
    () => checkExpandedDevices({ a: root, root }),
    /^LidoError: Invalid expanded devices: Failed detecting root disk device: More than one root device found$/,
  );
  assert.throws(() => rootDisk({}), /No root device could be found/);
  checkExpandedDevices({ root, a: disk({ path: "/mnt", source: "/srv" }) });
});

Deno.test("disksOf() mounts parents before children and keeps within the root", () => {
  const disks = disksOf({
    root: disk({ path: "/", pool: "p" }),
    c: disk({ path: "/a/b/c", source: "/1" }),
    b: disk({ path: "/a/b", pool: "p", source: "v/sub/dir" }),
    z: disk({
      path: "/../../z",
      source: "/2",
      required: "false",
      readonly: "true",
      "raw.mount.options": "nosuid, noatime",
    }),
    n: { type: "none" },
  });
  assert.deepEqual(disks.map((each) => each.target), ["/z", "/a/b", "/a/b/c"]);
  assert.deepEqual(disks[1]!.volume, { pool: "p", name: "v", subPath: "sub/dir" });
  assert.equal(disks[0]!.required, false);
  assert.deepEqual(disks[0]!.options, ["nosuid", "noatime", "ro"]);
});

Deno.test("sameDevice() looks at meaning, not order", () => {
  assert.ok(sameDevice({ a: "1", b: "2", c: "" }, { b: "2", a: "1" }));
  assert.ok(!sameDevice({ a: "1" }, undefined));
});
