import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { isSameBackup, parseBackup, writeBackup } from "./backup_yaml.ts";
import { parsePoolRecord, parseVolumeRecord, writePoolRecord, writeVolumeRecord } from "./volume_record.ts";

const lxd = readFileSync(new URL("../../tests/fixtures/lxd-5.0.2-backup.yaml", import.meta.url), "utf8");

Deno.test("what LXD 5.0.2 wrote is read, and written again in its form", () => {
  const backup = parseBackup(lxd);
  assert.equal(backup.instance.name, "d1");
  assert.match(backup.instance.config["volatile.last_state.idmap"]!, /"Hostid":100000/);
  assert.deepEqual(backup.pool?.driver, "dir");
  const theirs = parse(lxd), ours = parse(writeBackup(backup));
  for (const part of ["container", "pool", "volume"]) {
    assert.deepEqual(Object.keys(ours[part]).sort(), Object.keys(theirs[part]).sort(), part);
  }
  assert.deepEqual(parseBackup(writeBackup(backup)), backup);
});

Deno.test("snapshots, odd texts and times come back as they were", () => {
  const time = "2026-01-02T03:04:05.678Z";
  const config = { "user.a": "yes", "user.b": "0123", "user.c": "a: 'b'\n# \"c\"", "user.d": "null", "user.e": "~" };
  const snapshot = { name: "s0", createdAt: time, expiresAt: time, config, devices: {}, profiles: ["p"] };
  const backup = parseBackup(lxd);
  const more = { ...backup, snapshots: [{ snapshot, expanded: { config, devices: {} } }] };
  assert.deepEqual(parseBackup(writeBackup(more)), more);
  const record = {
    name: "v",
    description: "- x",
    createdAt: time,
    config,
    snapshots: [{ name: "0", description: "", createdAt: time, expiresAt: null, config }],
  };
  assert.deepEqual(parseVolumeRecord(writeVolumeRecord(record), "v.yaml"), record);
  const pool = { name: "p", driver: "dir", description: "", config };
  assert.deepEqual(parsePoolRecord(writePoolRecord(pool), "pool.yaml"), pool);
});

Deno.test("a start and a stop are no change, all else is one", () => {
  const backup = parseBackup(lxd), text = writeBackup(backup);
  const with_ = (config: object) =>
    writeBackup({ ...backup, instance: { ...backup.instance, config: { ...backup.instance.config, ...config } } });
  assert.ok(isSameBackup(with_({ "volatile.last_state.power": "RUNNING" }), text));
  assert.ok(!isSameBackup(with_({ "user.x": "1" }), text));
});

Deno.test("what is no record is refused with its reason", () => {
  const cases: [string, RegExp][] = [
    ["", /content/],
    ["[]", /content/],
    ["container: {name: [1]}", /container\.name/],
    ["a: &a [1]\ncontainer: {name: c1, config: *a}", /lias/],
    ["container: {name: c1, config: {a: {b: c}}}", /container\.config\.a/],
    ["container: {name: c1, type: virtual-machine}", /virtual-machine/],
    ["pool: {name: p, driver: dir}", /neither/],
    ["container: {name: a, name: b}", /unique/],
    ["{", /backup\.yaml/],
  ];
  for (const [text, pattern] of cases) assert.throws(() => parseBackup(text), pattern, text);
});
