import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { CommandError, type Host } from "../../host/host.ts";
import { holderOf } from "./lock.ts";
import { LvmTool, parseGroups, parseReport, parseVersion, parseVolumes } from "./tool.ts";

// Recorded from LVM 2.03.16(2).
const version = `  LVM version:     2.03.16(2) (2022-05-18)
  Library version: 1.02.185 (2022-05-18)
  Driver version:  4.47.0
  Configuration:   ./configure --build=x86_64-linux-gnu --prefix=/usr
`;
const groups = `  {
      "report": [
          {
              "vg": [
                  {"vg_name":"v1", "vg_size":"4290772992", "vg_free":"4290772992", "vg_extent_size":"4194304", "vg_tags":"lido_pool", "pv_name":"/dev/ubdb"}
              ]
          }
      ]
  }
`;
const volumes = `  {
      "report": [
          {
              "lv": [
                  {"lv_name":"LXDThinPool", "lv_size":"4282384384", "origin":"", "lv_active":"active", "lv_device_open":"open", "lv_attr":"twi-aotz--", "pool_lv":"", "lv_tags":"lido_pool"},
                  {"lv_name":"custom_default_a", "lv_size":"1073741824", "origin":"", "lv_active":"active", "lv_device_open":"open", "lv_attr":"Vwi-aotz-k", "pool_lv":"LXDThinPool", "lv_tags":""},
                  {"lv_name":"custom_default_a-s0", "lv_size":"1073741824", "origin":"custom_default_a", "lv_active":"", "lv_device_open":"unknown", "lv_attr":"Vri---tz-k", "pool_lv":"LXDThinPool", "lv_tags":""},
                  {"lv_name":"custom_default_m", "lv_size":"536870912", "origin":"", "lv_active":"", "lv_device_open":"unknown", "lv_attr":"Owi---s--k", "pool_lv":"", "lv_tags":"lido_restore_s0,x"}
              ]
          }
      ]
  }
`;
const empty = `  {
      "report": [
          {
              "lv": [
              ]
          }
      ]
  }
`;

Deno.test("lvm: the version is that of tool, library and driver; without a driver it is none", () => {
  assert.equal(parseVersion(version), "2.03.16(2) (2022-05-18) / 1.02.185 (2022-05-18) / 4.47.0");
  assert.throws(() => parseVersion(version.replace(/.*Driver.*\n/, "")), /the kernel has no device-mapper/);
  for (const nonsense of ["", "LVM", "\0\0", "Driver version: 4"]) {
    assert.throws(() => parseVersion(nonsense), /Cannot read/);
  }
});

Deno.test("lvm: groups, one row for each device", () => {
  const [group] = parseGroups(groups);
  assert.deepEqual(group, {
    name: "v1",
    sizeBytes: 4290772992n,
    freeBytes: 4290772992n,
    extentBytes: 4194304n,
    tags: ["lido_pool"],
    devices: ["/dev/ubdb"],
  });
  const row = groups.match(/\{"vg_name".*\}/)![0];
  const two = groups.replace(row, `${row},\n${row.replace("/dev/ubdb", "/dev/ubdc")}`);
  assert.deepEqual(parseGroups(two).map(({ devices }) => devices), [["/dev/ubdb", "/dev/ubdc"]]);
});

Deno.test("lvm: volumes, thin pools, snapshots, and what is being merged", () => {
  const [pool, volume, snapshot, merging] = parseVolumes(volumes);
  assert.deepEqual([pool!.isThinPool, pool!.tags, pool!.isMerging], [true, ["lido_pool"], false]);
  assert.deepEqual(volume, {
    name: "custom_default_a",
    sizeBytes: 1073741824n,
    origin: undefined,
    isActive: true,
    isOpen: true,
    isThinPool: false,
    thinPool: "LXDThinPool",
    isMerging: false,
    tags: [],
  });
  assert.deepEqual([snapshot!.origin, snapshot!.isActive, snapshot!.isOpen], ["custom_default_a", false, false]);
  assert.deepEqual([merging!.isMerging, merging!.tags], [true, ["lido_restore_s0", "x"]]);
  assert.deepEqual(parseVolumes(empty), []);
});

Deno.test("lvm: the reports of other versions say the same; a newer one has a log in them", () => {
  for (const [release, more] of [["2.03.11", "v-bullseye"], ["2.03.31", "v-trixie"]] as const) {
    const text = readFileSync(new URL(`../../../tests/fixtures/lvm-${release}.txt`, import.meta.url), "utf8");
    const [, of_, groups, volumes] = text.split(/^== .*\n/m) as [string, string, string, string];
    assert.match(
      parseVersion(of_),
      new RegExp(`^${RegExp.escape(release)}\\(2\\) .* / 1\\.02\\.\\d+ .* / 4\\.47\\.0$`),
    );
    const [group] = parseGroups(groups);
    assert.deepEqual([group!.name, group!.tags, group!.extentBytes], [more, ["lido_pool_0123456789ab"], 4194304n]);
    assert.deepEqual(
      parseVolumes(volumes).map((
        one,
      ) => [one.name, one.thinPool, one.isThinPool, one.isActive, one.isOpen, one.isMerging]),
      [
        ["LXDThinPool", undefined, true, true, true, false],
        ["custom_default_a", "LXDThinPool", false, true, false, false],
        ["custom_default_a-s0", "LXDThinPool", false, false, false, false],
        ["custom_default_m", undefined, false, false, false, true],
      ],
    );
  }
});

Deno.test("lvm: what is no report is refused", () => {
  for (
    const nonsense of [
      "",
      "null",
      "[]",
      "{}",
      '{"report": []}',
      '{"report": [{"lv": 1}]}',
      '{"report": [{"vg": []}]}',
      "Killed",
    ]
  ) {
    assert.throws(() => parseReport(nonsense, "lv"), /Cannot read the report of lvm/, nonsense);
  }
  for (const size of ["-1", "1.5", "1k", "", "0x10"]) {
    assert.throws(() => parseVolumes(volumes.replace('"1073741824"', JSON.stringify(size))), /"lv_size" is/, size);
  }
  assert.throws(() => parseVolumes(volumes.replaceAll("lv_attr", "attr")), /"lv_attr" is missing/);
});

const saying = (code: number, stderr: string): LvmTool =>
  new LvmTool({ run: (argv: string[]) => Promise.reject(new CommandError(argv, code, stderr)) } as unknown as Host);

Deno.test("lvm: what is not there is no error of removing, and none of asking", async () => {
  for (
    const text of [
      '  Failed to find logical volume "v1/nope"',
      '  Volume group "nope" not found\n  Cannot process volume group nope',
    ]
  ) {
    const tool = saying(5, text);
    await tool.remove("v1", "nope");
    await tool.removeGroup("nope");
    assert.equal(await tool.deactivate("v1", "nope"), true);
    const both = saying(5, `${text}\n  Logical volume v1/a in use.`);
    await assert.rejects(both.remove("v1", "nope", "a"), /in use/);
    assert.equal(await both.deactivate("v1", "nope", "a"), false);
    assert.equal(await tool.group("nope"), undefined);
    assert.equal(await tool.volumes("nope"), undefined);
  }
  await saying(5, "  No device found for /dev/zero2.").removePhysical(["/dev/zero2"]);
  await saying(5, "  New size (1022 extents) matches existing size (1022 extents).").extendAll("v1", "pool");
});

Deno.test("lvm: a volume in use stays active; any other failure is one", async () => {
  assert.equal(await saying(5, "  Logical volume v1/a contains a filesystem in use.").deactivate("v1", "a"), false);
  assert.equal(await saying(5, "  Logical volume v1/a is used by another device.").deactivate("v1", "a"), false);
  await assert.rejects(saying(5, "  /dev/sdb: Checksum error").deactivate("v1", "a"), /Checksum error/);
  await assert.rejects(saying(5, "  Input/output error").volumes("v1"), /Input\/output error/);
});

Deno.test("lvm: who has a lock, not who waits for it", () => {
  const locks = `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF
1: -> FLOCK  ADVISORY  WRITE 99 00:1a:5678 0 EOF
2: POSIX  ADVISORY  READ 7 fd:00:15678 0 EOF
`;
  assert.equal(holderOf(locks, 5678), 1234);
  assert.equal(holderOf(locks, 15678), 7);
  assert.equal(holderOf(locks, 78), undefined);
  assert.equal(holderOf("", 5678), undefined);
});
