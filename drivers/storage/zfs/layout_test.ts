import assert from "node:assert/strict";
import type { Volume } from "../driver.ts";
import { initialDatasets, names } from "./layout.ts";

Deno.test("volumes and snapshots have LXD's names in ZFS, and are read from them again", () => {
  const volumes: [Volume, string][] = [
    [{ type: "container", name: "c1" }, "tank/lido/containers/c1"],
    [{ type: "custom", name: "default_v" }, "tank/lido/custom/default_v"],
    [{ type: "custom", name: "default_v", snapshot: "s0" }, "tank/lido/custom/default_v@snapshot-s0"],
    [{ type: "image", name: "ab12" }, "tank/lido/images/ab12"],
    // ZFS does not allow "+" and "@" in names.
    [{ type: "custom", name: "default_a+b@c" }, "tank/lido/custom/default_a 2bb 40c"],
    [{ type: "custom", name: "default_a", snapshot: "x@1" }, "tank/lido/custom/default_a@snapshot-x 401"],
  ];
  for (const [volume, name] of volumes) {
    assert.equal(names.of("tank/lido", volume), name);
    assert.deepEqual(names.volume("tank/lido", name), volume);
  }
});

Deno.test("what is no volume is none", () => {
  for (
    const name of [
      "tank",
      "tank/lido",
      "tank/lido2/custom/v",
      "tank/lido/custom",
      "tank/lido/virtual-machines/v",
      "tank/lido/deleted/custom/1b4e28ba-2fa1-11d2-883f-0016d3cca427",
      "tank/lido/custom/default_v/nested",
      "tank/lido/custom/default_v@copy-1b4e28ba-2fa1-11d2-883f-0016d3cca427",
      "tank/lido/custom/default_v@snapshot-.lido-transfer",
      "tank/lido/custom/.lido-restore-default_v",
      "tank/lido/custom/.lido-restore-default_v@snapshot-s0",
      "tank/lido/images/ab12@readonly",
    ]
  ) assert.equal(names.volume("tank/lido", name), undefined, name);
});

Deno.test("what is kept, cut off or foreign is told apart", () => {
  assert.equal(names.isKept("p", "p/deleted/custom/1b4e28ba-2fa1-11d2-883f-0016d3cca427"), true);
  for (
    const name of [
      "p/deleted",
      "p/deleted/custom",
      "p/deleted/custom/x@snapshot-s0",
      "p2/deleted/custom/x",
      "p/custom/x",
    ]
  ) {
    assert.equal(names.isKept("p", name), false, name);
  }
  for (
    const name of [
      "p",
      ...initialDatasets.map((one) => `p/${one}`),
      "p/custom/v",
      "p/custom/v@snapshot-s",
      "p/deleted/custom/x",
    ]
  ) {
    assert.equal(names.isOurs("p", name), true, name);
  }
  for (const name of ["p@mine", "p/mine", "p/virtual-machines/v", "p2", "p2/custom/v", "customs"]) {
    assert.equal(names.isOurs("p", name), false, name);
  }
  assert.deepEqual(names.restoredVolume("p", "p/containers/.lido-restore-c1"), { type: "container", name: "c1" });
});

Deno.test("every pool has LXD 5.0's datasets, parents before what is in them", () => {
  assert.deepEqual(initialDatasets, [
    "containers",
    "custom",
    "images",
    "virtual-machines",
    "deleted",
    "deleted/containers",
    "deleted/custom",
    "deleted/images",
    "deleted/virtual-machines",
  ]);
});
