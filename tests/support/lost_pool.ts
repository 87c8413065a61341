import assert from "node:assert/strict";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { FoundPool, RecoverResult } from "../../api/types.ts";
import type { Daemon } from "./daemon.ts";
import { createHost } from "../../drivers/host/real.ts";
import { busyboxImage } from "./image.ts";
import { RawClient } from "./raw.ts";

const host = createHost();

/** Deletes the database while a container runs on `pool`, which has nothing else on it. Listing what can be recovered changes nothing on the host,
 * and a recovery brings everything back. @param look Reads the pool's state on the host, without mounts. */
export async function loseDatabase(daemon: Daemon, pool: string, look: () => Promise<unknown>): Promise<void> {
  const raw = new RawClient(daemon.directory);
  await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
  await daemon.ok("storage", "volume", "create", pool, "kept");
  await daemon.ok("init", "bb", "c1", "-s", pool);
  await daemon.ok("storage", "volume", "attach", pool, "kept", "c1", "/mnt");
  await daemon.ok("start", "c1");
  await daemon.ok("exec", "c1", "--", "sh", "-c", "echo text > /mnt/file; echo own > /root/own; sync");
  const { pid } = await daemon.query("/1.0/instances/c1/state") as { pid: number };
  await daemon.kill();
  for (const end of ["", "-wal", "-shm"]) rmSync(join(daemon.directory, `lido.db${end}`), { force: true });
  await daemon.up();
  const mounts = async () => {
    return (await host.mounts.list()).map(({ target }) => target).filter((one) => one.startsWith(daemon.directory));
  };
  const before = [await look(), await mounts()];
  const found = await daemon.query("/internal/recover/pools") as FoundPool[];
  const pools = found.filter(({ name }) => name === pool);
  assert.equal(pools.length, 1, JSON.stringify(found));
  const { body } = await raw.ask("POST", "/internal/recover/validate", { pools });
  const seen = body.metadata as RecoverResult;
  assert.deepEqual(seen.UnknownVolumes.map(({ name }) => name).sort(), ["c1", "kept"], JSON.stringify(body));
  assert.deepEqual([await look(), await mounts()], before);
  assert.ok(existsSync(`/proc/${pid}`));
  await daemon.ok("admin", "recover", "--yes", "--drop-images");
  assert.equal((await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid, pid);
  assert.equal(await daemon.ok("exec", "c1", "--", "cat", "/mnt/file", "/root/own"), "text\nown");
  await daemon.ok("restart", "-f", "c1");
  assert.equal(await daemon.ok("exec", "c1", "--", "cat", "/mnt/file", "/root/own"), "text\nown");
  await daemon.ok("delete", "-f", "c1");
  // Import the image again to have its file known, and deleted with the image.
  await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
  await daemon.ok("image", "delete", "bb");
  await daemon.ok("storage", "volume", "delete", pool, "kept");
}
