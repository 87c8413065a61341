import { mkdir, readdir, rm, rmdir, stat } from "node:fs/promises";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import type { Host } from "../../host/host.ts";
import type { DriverKind, Pool } from "../driver.ts";
import { anyText, boolean } from "../keys.ts";
import { listTemporaries, makeDirectories } from "../layout.ts";
import { removeTree } from "../tree.ts";
import { DirDriver } from "./driver.ts";
import { canReflink } from "./reflink.ts";

/** A pool that is a plain directory: the pool's own, or `source`, which is then bind-mounted at the pool's place. */
export const dirKind: DriverKind = {
  name: "dir",
  packages: [],
  poolKeys: {
    "source": { check: anyText, fixed: true, help: "Path of an existing, empty directory" },
    "rsync.bwlimit": { check: anyText, default: "0", help: "Kept for LXD's sake; copies here do not use rsync" },
    "rsync.compression": { check: boolean, default: "true", help: "Kept for LXD's sake; copies here do not use rsync" },
  },
  volumeKeys: {},

  probe: () => Promise.resolve({ version: "1" }),

  async plan(_host, pool) {
    const source = pool.config.source;
    if (!source) return { ...pool.config, source: pool.root };
    if (!isAbsolute(source)) throw new LidoError("bad_request", `Source path '${source}' isn't absolute`);
    const clean = resolve(source);
    if (clean === pool.root) return { ...pool.config, source: clean };
    const lidoDirectory = dirname(dirname(pool.root));
    if (clean === lidoDirectory || clean.startsWith(lidoDirectory + "/")) {
      throw new LidoError("bad_request", `Source path '${source}' is within the lido directory`);
    }
    const info = await stat(clean).catch(() => undefined);
    if (!info) throw new LidoError("bad_request", `Source path '${source}' doesn't exist`);
    if (!info.isDirectory()) throw new LidoError("bad_request", `Source path '${source}' isn't a directory`);
    if ((await readdir(clean)).length > 0) throw new LidoError("bad_request", `Source path '${source}' isn't empty`);
    return { ...pool.config, source: clean };
  },

  async create(host, pool) {
    await mkdir(pool.root, { recursive: true, mode: 0o711 });
    await bindSource(host, pool);
    await makeDirectories(pool.root);
    return await this.open(host, pool);
  },

  async open(host, pool) {
    const source = pool.config.source ?? pool.root;
    if (!await stat(source).then((info) => info.isDirectory(), () => false)) {
      throw new LidoError("unavailable", `Source path '${source}' doesn't exist`);
    }
    await mkdir(pool.root, { recursive: true, mode: 0o711 });
    await bindSource(host, pool);
    await makeDirectories(pool.root);
    for (const leftover of await listTemporaries(pool.root)) await removeTree(host, join(pool.root, leftover));
    const [reflink, idmappedMounts] = await Promise.all([canReflink(host, pool.root), host.mounts.canIdmap(pool.root)]);
    return new DirDriver(host, pool, { reflink, idmappedMounts });
  },

  async destroy(host, pool) {
    const source = pool.config.source;
    const foreign = source !== undefined && source !== pool.root;
    // What is in a foreign directory is ours, the directory itself is not.
    if (foreign && (await host.mounts.at(pool.root)) === undefined) return await dropRoot(pool);
    for (const entry of await readdir(pool.root).catch(() => [])) {
      if (!foreign || ownEntries.test(entry)) await removeTree(host, join(pool.root, entry));
    }
    await host.mounts.unmount(pool.root);
    await dropRoot(pool);
  },
};

const ownEntries = /^(containers|custom|images|containers-snapshots|custom-snapshots)$/;

async function bindSource(host: Host, pool: Pool): Promise<void> {
  const source = pool.config.source;
  if (!source || source === pool.root || await host.mounts.at(pool.root)) return;
  await host.mounts.bind(source, pool.root);
}

async function dropRoot(pool: Pool): Promise<void> {
  await rmdir(pool.root).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return;
    await rm(pool.root, { recursive: true });
  });
}
