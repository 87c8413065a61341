import assert from "node:assert/strict";
import type { Volume } from "../driver.ts";
import { deviceName, logicalName, parentOfTemporary, temporaryName, volumeOf } from "./layout.ts";

const cases: [Volume, string][] = [
  [{ type: "custom", name: "default_v" }, "custom_default_v"],
  [{ type: "custom", name: "default_my-vol" }, "custom_default_my--vol"],
  [{ type: "custom", name: "default_my-vol", snapshot: "s-0" }, "custom_default_my--vol-s--0"],
  [{ type: "custom", name: "default_v-", snapshot: "s" }, "custom_default_v---s"],
  [{ type: "container", name: "c1", snapshot: "snap0" }, "containers_c1-snap0"],
  [{ type: "image", name: "f".repeat(64) }, `images_${"f".repeat(64)}`],
  [{ type: "custom", name: "default_v", snapshot: ".lido-transfer" }, "custom_default_v-.lido--transfer"],
];

Deno.test("lvm: names are LXD's, there and back", () => {
  for (const [volume, name] of cases) {
    assert.equal(logicalName("vg", volume), name);
    assert.deepEqual(volumeOf(name), volume);
  }
});

Deno.test("lvm: what is not ours is no volume", () => {
  for (
    const name of ["LXDThinPool", "root", "lvol0_pmspare", "custom_", "custom_a-b-c", "_x", "new_custom_default_v"]
  ) {
    assert.equal(volumeOf(name), undefined, name);
  }
  assert.equal(parentOfTemporary(temporaryName("custom_default_v", "new")), "custom_default_v");
  assert.equal(parentOfTemporary("old_photos"), undefined);
});

Deno.test("lvm: names that it cannot have are refused with the reason", () => {
  const refused = (name: string, pattern: RegExp) =>
    assert.throws(() => logicalName("vg", { type: "custom", name: `default_${name}` }), pattern, name);
  refused("a@b", /letters, digits and \. _ - \+ are allowed/);
  refused("a:b", /letters, digits/);
  refused("a_tdata", /"_tdata" is reserved/);
  refused("a-".repeat(25), /too long by \d+ characters/);
});

Deno.test("lvm: device-mapper's names double each hyphen", () => {
  assert.equal(deviceName("my-vg", "custom_default_a--b"), "my--vg-custom_default_a----b");
});
