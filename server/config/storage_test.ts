import assert from "node:assert/strict";
import type { Driver } from "../../drivers/storage/driver.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { DatabaseSync } from "node:sqlite";
import { carriedOver, refuseShared } from "./storage.ts";
import type { Database } from "../state/database.ts";

const kind = (name: string) => driverKinds.get(name)!;
const limiting = { facets: { quota: {} } } as Driver, unlimited = { facets: {} } as Driver;

Deno.test("a copy leaves behind what only its source's driver knows, and a size that nobody may have asked for", () => {
  const config = {
    size: "64MiB",
    "block.filesystem": "xfs",
    "lvm.stripes": "2",
    "snapshots.expiry": "1d",
    "user.note": "x",
    "volatile.idmap.last": "[]",
    "no.such": "stays, to be refused",
  };
  const common = {
    "snapshots.expiry": "1d",
    "user.note": "x",
    "volatile.idmap.last": "[]",
    "no.such": "stays, to be refused",
  };
  assert.deepEqual(carriedOver(config, kind("lvm"), kind("lvm"), limiting), config);
  assert.deepEqual(carriedOver(config, kind("lvm"), kind("btrfs"), limiting), { size: "64MiB", ...common });
  assert.deepEqual(carriedOver(config, kind("lvm"), kind("dir"), unlimited), common);
  // A ZFS volume has a size only if the user wanted a limit: it stays, so that the target refuses it.
  assert.deepEqual(carriedOver({ size: "1GiB", "zfs.blocksize": "8KiB" }, kind("zfs"), kind("dir"), unlimited), {
    size: "1GiB",
  });
  assert.deepEqual(carriedOver(config, undefined, kind("dir"), limiting), config);
});

Deno.test("a volume group or ZFS pool is one pool's, by whatever name it is asked for", () => {
  const database = new DatabaseSync(":memory:");
  database.exec("CREATE TABLE storage_pools (name TEXT, config TEXT)");
  const insert = database.prepare("INSERT INTO storage_pools VALUES (?, ?)");
  insert.run("one", JSON.stringify({ source: "/dev/a", "lvm.vg_name": "g" }));
  insert.run("plain", JSON.stringify({ source: "/srv" }));
  const all = (sql: string) => database.prepare(sql).all();
  const refuse = (config: Record<string, string>) => refuseShared({ all } as unknown as Database, config);
  assert.throws(() => refuse({ source: "/dev/a" }), /^LidoError: Source "\/dev\/a" is in use by storage pool "one"$/);
  assert.throws(
    () => refuse({ source: "g", "lvm.vg_name": "g" }),
    /^LidoError: Volume group "g" is in use by storage pool "one"$/,
  );
  refuse({ source: "/dev/b", "lvm.vg_name": "h" });
  refuse({});
  database.close();
});
