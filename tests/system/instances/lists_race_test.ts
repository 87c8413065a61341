/** Lists with resource usage, while instances and volumes are made and deleted: deleted ones are omitted, and no list fails. */
import assert from "node:assert/strict";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { RawClient } from "../../support/raw.ts";

const rounds = 3;

Deno.test("lists with usage, while instances and volumes come and go", async () => {
  const image = await busyboxImage();
  await using daemon = await Daemon.start();
  await daemon.furnish(image);
  await daemon.ok("init", "bb", "stays");
  await daemon.ok("storage", "volume", "create", "plain", "stays");

  const client = new RawClient(daemon.directory);
  const get = async (path: string) => {
    const { status, body } = await client.ask("GET", path);
    return { status, answer: body as { error: string; metadata: unknown } };
  };
  let isOver = false;
  const comeAndGo = async (name: string, pool: string) => {
    for (let round = 0; round < rounds; round++) {
      await daemon.ok("init", "bb", name, "-s", pool);
      await daemon.ok("storage", "volume", "create", pool, name);
      await daemon.ok("storage", "volume", "snapshot", pool, name, "snap0");
      await daemon.ok("snapshot", name, "snap0");
      await daemon.ok("storage", "volume", "delete", pool, name);
      await daemon.ok("delete", "-f", name);
    }
  };
  const poolsComeAndGo = async () => {
    for (let round = 0; round < rounds; round++) {
      await daemon.ok("storage", "create", "passing", "dir");
      await daemon.ok("storage", "volume", "create", "passing", "v");
      await daemon.ok("storage", "volume", "delete", "passing", "v");
      await daemon.ok("storage", "delete", "passing");
    }
  };
  const seen = new Set<number>();
  const list = async (path: string, isWhole: (entry: Record<string, unknown>) => boolean) => {
    while (!isOver) {
      const { status, answer } = await get(path);
      assert.equal(status, 200, `${path}: ${answer.error}`);
      const entries = answer.metadata as Record<string, unknown>[];
      seen.add(entries.length);
      for (const entry of entries) assert.ok(isWhole(entry), `${path}: ${JSON.stringify(entry)}`);
      assert.ok(entries.some(({ name }) => name === "stays" || name === "plain"), path);
    }
  };
  /** Requests `paths` over and over: a thing may be deleted while it is read (404), or a pool may not be ready yet (503); no other error is
   * allowed. */
  const look = async (...paths: string[]) => {
    while (!isOver) {
      for (const path of paths) {
        const { status, answer } = await get(path);
        assert.ok([200, 404, 503].includes(status), `${path}: ${status} ${answer.error}`);
      }
    }
  };
  const command = async (...argv: string[]) => {
    while (!isOver) assert.match(await daemon.ok(...argv), /stays|plain/);
  };
  const isNamed = ({ name }: Record<string, unknown>) => typeof name === "string";
  const volumes = (pool: string) => `/1.0/storage-pools/${pool}/volumes`;
  const readers = [
    list("/1.0/instances?recursion=2", ({ state }) => state !== null),
    list(`${volumes("plain")}?recursion=1`, isNamed),
    list("/1.0/storage-pools?recursion=1", isNamed),
    command("list", "-c", "nDmSN"),
    command("storage", "volume", "list", "plain", "-c", "nutU"),
    look("/1.0/instances/a?recursion=1", "/1.0/instances/a/state", "/1.0/instances/b/snapshots?recursion=1"),
    command("storage", "list"),
    look("/1.0/storage-pools/passing", "/1.0/storage-pools/passing/resources", `${volumes("passing")}?recursion=1`),
    look(`${volumes("fast")}/custom/a/state`, `${volumes("fast")}/container/a/state`),
    look(`${volumes("plain")}/custom/b/state`, `${volumes("plain")}/custom/b/snapshots?recursion=1`),
  ];
  const changes = Promise.all([comeAndGo("a", "fast"), comeAndGo("b", "plain"), poolsComeAndGo()]).finally(() =>
    isOver = true
  );
  const outcomes = await Promise.allSettled([changes, ...readers]);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  assert.ok(seen.size > 1, "nothing has come or gone while it was looked at");
});
