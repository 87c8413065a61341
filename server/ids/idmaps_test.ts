import assert from "node:assert/strict";
import fc from "fast-check";
import type { IdRange } from "../../drivers/host/id_map.ts";
import {
  checkOwnRange,
  describeIdmap,
  extendsIdmap,
  formatIdmap,
  type HostRanges,
  parseIdmap,
  planIdmap,
  sameIdmap,
  type TakenRange,
} from "./idmaps.ts";

const host: HostRanges = {
  uid: [{ start: 1_000_000, count: 1_000_000 }, { start: 1000, count: 2 }],
  gid: [{ start: 1_000_000, count: 1_000_000 }, { start: 1000, count: 2 }],
};

Deno.test("planIdmap() gives instances that say nothing one shared map: all of root's range", () => {
  const { map, base } = planIdmap({}, host, []);
  assert.equal(base, 0);
  assert.deepEqual(map, {
    uid: [{ container: 0, host: 1_000_000, count: 1_000_000 }],
    gid: [{ container: 0, host: 1_000_000, count: 1_000_000 }],
  });
  // As LXD: the first range that is large enough, for uids and gids each; a small one if there is no other.
  const mixed: HostRanges = {
    uid: [{ start: 1000, count: 1 }, { start: 100_000, count: 65536 }, { start: 500_000, count: 100_000_000 }],
    gid: [{ start: 200_000, count: 10 }, { start: 300_000, count: 20 }],
  };
  assert.deepEqual(planIdmap({}, mixed, []).map, {
    uid: [{ container: 0, host: 100_000, count: 65536 }],
    gid: [{ container: 0, host: 300_000, count: 20 }],
  });
});

Deno.test("planIdmap() cuts isolated ranges from the shared one as LXD does, and from a further one if there is one", () => {
  const isolated = { "security.idmap.isolated": "true" };
  const range = { start: 100_000, count: 10_000_001 };
  const one: HostRanges = { uid: [range], gid: [range] };
  // Seen on LXD 5.0.2 with the same range and sizes.
  const taken: TakenRange[] = [];
  for (const [size, base] of [["", 165_536], ["200000", 231_072], ["", 431_072]] as const) {
    const plan = planIdmap({ ...isolated, "security.idmap.size": size }, one, taken);
    assert.equal(plan.base, base);
    taken.push({ base, size: Number(size) || 65536 });
  }
  const more = { start: 20_000_000, count: 100_000 };
  const two: HostRanges = { uid: [range, more], gid: [range, more] };
  assert.equal(planIdmap(isolated, two, [], 165_536).base, 20_000_000, "it moves out of the shared range");
  assert.equal(planIdmap(isolated, two, [{ base: 20_000_000, size: 65536 }]).base, 165_536, "no room there");
  assert.equal(planIdmap(isolated, two, [{ base: 20_000_005, size: 1, isRaw: true }]).base, 20_000_006);
  const apart: HostRanges = { uid: [range], gid: [{ start: 20_000_000, count: 65536 }] };
  assert.throws(() => planIdmap(isolated, apart, []), /no 65536 free ids in a row in root's ids for it \(none;/);
});

Deno.test("planIdmap() gives a privileged instance none", () => {
  assert.deepEqual(planIdmap({ "security.privileged": "true" }, host, []), { base: 0 });
});

Deno.test("planIdmap() cuts raw.idmap's ids out of the map", () => {
  const { map } = planIdmap({ "raw.idmap": "uid 1000 500\nboth 1001 7" }, host, []);
  assert.deepEqual(map!.uid, [
    { container: 0, host: 1_000_000, count: 7 },
    { container: 7, host: 1001, count: 1 },
    { container: 8, host: 1_000_008, count: 492 },
    { container: 500, host: 1000, count: 1 },
    { container: 501, host: 1_000_501, count: 999_499 },
  ]);
  assert.equal(map!.gid.length, 3);
});

for (
  const [text, expected] of [
    ["uid 1", /Invalid ID map line "uid 1"$/],
    ["foo 1 2", /Invalid ID map type "foo 1 2"$/],
    ["both a b", /Invalid ID map range "a"/],
    ["both 1000-1001 5-7", /same size/],
    ["both 1000001 5", /Host id is in the range of subids$/],
    ["\tboth 1000 5", /Invalid ID map type "\tboth 1000 5"$/],
    ["both 1000 5\r\n", /Invalid ID map range "5\r"/],
    ["both\t1000 5", /Invalid ID map line/],
    ["both  1000 5", /Invalid ID map line/],
    [" ", /Invalid ID map line " "$/],
    ["both 1000 5\nuid 1001 5", /same container id/],
    ["both 1000 5\nuid 1000 6", /same host id/],
    ["both 4294967295 5", /Invalid ID map range/],
    ["both 1001-1000 5-4", /Invalid ID map range/],
  ] as const
) {
  Deno.test(`planIdmap() refuses raw.idmap ${JSON.stringify(text)}`, () => {
    assert.throws(() => planIdmap({ "raw.idmap": text }, host, []), expected);
  });
}

Deno.test("planIdmap() takes any host id in raw.idmap but those of the shared range and its own", () => {
  assert.deepEqual(planIdmap({ "raw.idmap": "both 0 0\nuid 4294967294 7" }, host, []).map!.uid, [
    { container: 0, host: 0, count: 1 },
    { container: 1, host: 1_000_001, count: 6 },
    { container: 7, host: 4_294_967_294, count: 1 },
    { container: 8, host: 1_000_008, count: 999_992 },
  ]);
  const isolated = { "security.idmap.isolated": "true" };
  assert.equal(planIdmap({ ...isolated, "raw.idmap": "both 5 70000" }, host, []).map!.uid.length, 2);
  for (const id of [1_000_001, 1_065_537, 1_999_999]) {
    assert.throws(() => planIdmap({ ...isolated, "raw.idmap": `both ${id} 5` }, host, []), /range of subids$/);
  }
});

Deno.test("planIdmap() refuses ids in raw.idmap that an isolated instance has, or may get", () => {
  const range = { start: 100_000, count: 65536 }, further = { start: 20_000_000, count: 1_000_000 };
  const two: HostRanges = { uid: [range, further, { start: 1000, count: 1 }], gid: [range, { start: 1000, count: 1 }] };
  const isolated = { "security.idmap.isolated": "true", "security.idmap.base": "100000" };
  const own: TakenRange = { base: 30_000_000, size: 65536 }; // from a range that root had earlier
  for (const config of [{}, isolated]) {
    const plan = (text: string, taken: readonly TakenRange[] = [own]) =>
      planIdmap({ ...config, "raw.idmap": text }, two, taken);
    for (const text of ["both 20000005 7", "uid 20999999 7", "both 30000005 7", "gid 30065535 7"]) {
      assert.throws(() => plan(text), /Host id is in the range of subids$/, text);
    }
    for (const text of ["gid 20000005 7", "both 1000 7", "both 30065536 7"]) plan(text);
    plan("both 30000005 7", [{ ...own, isRaw: true }]);
  }
});

Deno.test("checkOwnRange() refuses an isolated range that is not root's any more", () => {
  const range = { start: 100_000, count: 65536 }, further = { start: 20_000_000, count: 1_000_000 };
  const one: HostRanges = { uid: [range], gid: [range, further] };
  const two: HostRanges = { uid: [range, further], gid: [range, further] };
  const config = { "security.idmap.isolated": "true", "volatile.idmap.base": "20000000" };
  checkOwnRange(config, two);
  checkOwnRange({ ...config, "security.idmap.isolated": "false" }, one);
  checkOwnRange({ ...config, "security.privileged": "true" }, one);
  assert.throws(() => checkOwnRange(config, one), /its ids 20000000-20065535 are not within root's ids.*100000-165535/);
  assert.throws(() => checkOwnRange({ ...config, "security.idmap.size": "1000001" }, two), /not within/);
});

Deno.test("extendsIdmap() finds the same host id for each id of the narrow map", () => {
  const all = planIdmap({}, host, []).map!;
  const raw = planIdmap({ "raw.idmap": "both 1000 5" }, host, []).map!;
  const line = (container: number, start: number, count: number) => ({ container, host: start, count });
  const old = { uid: [line(0, 1_000_000, 65536)], gid: [line(0, 1_000_000, 65536)] };
  const pieces = { uid: [line(0, 1_000_000, 9), line(9, 1_000_009, 5)], gid: old.gid };
  assert.ok(extendsIdmap(all, all) && extendsIdmap(all, old) && extendsIdmap(all, pieces) && extendsIdmap(old, pieces));
  assert.ok(
    !extendsIdmap(old, all) && !extendsIdmap(raw, old) && !extendsIdmap(all, raw) && !extendsIdmap(pieces, old),
  );
  assert.ok(extendsIdmap(undefined, undefined) && !extendsIdmap(undefined, old) && !extendsIdmap(all, undefined));
});

Deno.test("planIdmap() says so when the ids are used up, and when a fixed base is outside", () => {
  const isolated = { "security.idmap.isolated": "true" };
  assert.throws(
    () => planIdmap({ ...isolated, "security.idmap.size": "2000000" }, host, []),
    /Not enough uid\/gid available for the container/,
  );
  assert.throws(
    () => planIdmap({ ...isolated, "security.idmap.base": "5" }, host, []),
    /Not enough uid\/gid available/,
  );
  assert.throws(() => planIdmap({ ...isolated, "security.idmap.size": "0" }, host, []), /at least 1/);
});

Deno.test("planIdmap() gives a chosen base to two instances as a whole, not in part", () => {
  const chosen = { "security.idmap.isolated": "true", "security.idmap.base": "1500000" };
  const other = { base: 1_500_000, size: 65536 };
  assert.equal(planIdmap(chosen, host, [other]).base, 1_500_000);
  assert.throws(
    () => planIdmap({ ...chosen, "security.idmap.base": "1500001" }, host, [other]),
    /Invalid security.idmap.base: ids 1500001 to 1565536 overlap those of another instance, 1500000-1565535$/,
  );
});

Deno.test("isolated maps never overlap, stay, and are used again", () => {
  const step = fc.oneof(
    fc.record({ make: fc.integer({ min: 1, max: 200_000 }) }),
    fc.record({ drop: fc.nat(20) }),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const taken: TakenRange[] = [];
    for (const each of steps) {
      if ("drop" in each) {
        taken.splice(each.drop, 1);
        continue;
      }
      const config = { "security.idmap.isolated": "true", "security.idmap.size": String(each.make) };
      let base: number;
      try {
        base = planIdmap(config, host, taken).base;
      } catch {
        // Refused: check that there is no gap. A range can only start at the first id or after another range.
        const starts = [1_065_536, ...taken.map((range) => range.base + range.size)];
        for (const start of starts) {
          assert.ok(
            start + each.make > 2_000_000 ||
              taken.some((range) => start < range.base + range.size && range.base < start + each.make),
          );
        }
        continue;
      }
      assert.ok(base >= 1_065_536 && base + each.make <= 2_000_000);
      for (const range of taken) assert.ok(base + each.make <= range.base || range.base + range.size <= base);
      assert.equal(planIdmap(config, host, taken, base).base, base, "stable");
      taken.push({ base, size: each.make });
    }
  }));
});

Deno.test("a map with raw entries maps each id once, inside and outside", () => {
  const wide: HostRanges = { uid: [...host.uid, { start: 0, count: 5000 }], gid: host.gid };
  const entry = fc.tuple(fc.nat(4000), fc.nat(70_000), fc.integer({ min: 1, max: 50 }));
  fc.assert(fc.property(fc.array(entry, { maxLength: 6 }), (entries) => {
    const text = entries.map(([outside, inside, count]) =>
      `uid ${outside}-${outside + count - 1} ${inside}-${inside + count - 1}`
    ).join("\n");
    let lines: readonly IdRange[];
    try {
      lines = planIdmap({ "raw.idmap": text }, wide, []).map!.uid;
    } catch (error) {
      assert.match(String(error), /two entries map the same/);
      return;
    }
    for (let index = 1; index < lines.length; index++) {
      assert.ok(lines[index - 1]!.container + lines[index - 1]!.count <= lines[index]!.container);
    }
    const byHost = [...lines].sort((a, b) => a.host - b.host);
    for (let index = 1; index < byHost.length; index++) {
      assert.ok(byHost[index - 1]!.host + byHost[index - 1]!.count <= byHost[index]!.host);
    }
    for (const [outside, inside] of entries) {
      const line = lines.find((each) => each.container <= inside && inside < each.container + each.count)!;
      assert.equal(line.host + inside - line.container, outside);
    }
    const map = planIdmap({ "raw.idmap": text }, wide, []).map;
    assert.ok(sameIdmap(parseIdmap(formatIdmap(map)), map));
  }));
});

Deno.test("formatIdmap() writes what LXD writes", () => {
  assert.equal(formatIdmap(undefined), "[]");
  assert.equal(
    formatIdmap(planIdmap({}, host, []).map),
    '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":1000000},{"Isuid":false,"Isgid":true,"Hostid":1000000,"Nsid":0,"Maprange":1000000}]',
  );
  assert.equal(parseIdmap("[]"), undefined);
  assert.throws(() => parseIdmap("{"), /Cannot read the id map/);
});

Deno.test("parseIdmap() reads what LXD writes for an entry of both kinds", () => {
  const range = { start: 100_000, count: 10_000_001 };
  // Written by LXD 5.0.2 with raw.idmap "both 1000 5".
  const text =
    '[{"Isuid":true,"Isgid":false,"Hostid":100000,"Nsid":0,"Maprange":5},{"Isuid":true,"Isgid":true,"Hostid":1000,"Nsid":5,"Maprange":1},{"Isuid":true,"Isgid":false,"Hostid":100006,"Nsid":6,"Maprange":9999995},{"Isuid":false,"Isgid":true,"Hostid":100000,"Nsid":0,"Maprange":5},{"Isuid":true,"Isgid":true,"Hostid":1000,"Nsid":5,"Maprange":1},{"Isuid":false,"Isgid":true,"Hostid":100006,"Nsid":6,"Maprange":9999995}]';
  assert.deepEqual(parseIdmap(text), planIdmap({ "raw.idmap": "both 1000 5" }, { uid: [range], gid: [range] }, []).map);
});

Deno.test("describeIdmap() is for people: ranges, both kinds at once where they are the same, the first of many", () => {
  assert.equal(describeIdmap(undefined), "the host's ids (it is privileged)");
  const lines = [{ container: 0, host: 100, count: 50 }, { container: 50, host: 7, count: 1 }];
  assert.equal(describeIdmap({ uid: lines, gid: lines }), "ids 0-49 as 100-149, 50 as 7");
  assert.equal(
    describeIdmap({ uid: lines, gid: lines.slice(0, 1) }),
    "uids 0-49 as 100-149, 50 as 7 and gids 0-49 as 100-149",
  );
  const many = Array.from({ length: 9 }, (_, index) => ({ container: index, host: 100 - index, count: 1 }));
  assert.equal(describeIdmap({ uid: many, gid: many }), "ids 0 as 100, 1 as 99, 2 as 98, 3 as 97, …");
});
