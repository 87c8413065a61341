import { mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import type { Host } from "../../host/host.ts";
import { pathOf } from "../directory_volumes.ts";
import type { DriverKind, Pool } from "../driver.ts";
import { anyText, boolean } from "../keys.ts";
import { listDirectories, makeDirectories, needDirectories, repairModes, temporaryPrefix } from "../layout.ts";
import { deletePoolRoot } from "../pool_root.ts";
import { checkSourceDirectory } from "../source.ts";
import { removeTree } from "../tree.ts";
import { DirDriver } from "./driver.ts";
import { canReflink } from "./reflink.ts";

/** A pool that is a plain directory: its root, or `source`, which is then bind-mounted at its root. */
export const dirKind: DriverKind = {
  name: "dir",
  packages: [],
  poolKeys: {
    "source": { check: anyText, fixed: true, help: "Path of an existing, empty directory" },
    "rsync.bwlimit": {
      check: anyText,
      default: "0",
      help: "For LXD's pools: copies do not use rsync here, whatever it says",
    },
    "rsync.compression": {
      check: boolean,
      default: "true",
      help: "For LXD's pools: copies do not use rsync here, whatever it says",
    },
  },
  volumeKeys: {},

  probe: () => Promise.resolve({ version: "1" }),

  async plan(_host, pool) {
    const source = pool.config.source;
    if (!source) return { ...pool.config, source: pool.root };
    return { ...pool.config, source: await checkSourceDirectory(pool, source) };
  },

  async create(host, pool) {
    await mkdir(pool.root, { recursive: true, mode: 0o700 });
    await bindSource(host, pool);
    await makeDirectories(pool.root);
    return await this.open(host, pool);
  },

  async open(host, pool) {
    const source = pool.config.source ?? pool.root;
    if (!await stat(source).then((info) => info.isDirectory(), () => false)) {
      throw new LidoError("unavailable", `Source path '${source}' doesn't exist`);
    }
    await mkdir(pool.root, { recursive: true, mode: 0o700 });
    await bindSource(host, pool);
    if (source !== pool.root) await host.mounts.forbidDevices(pool.root);
    await needDirectories(pool.root);
    await repairModes(pool.root);
    const [reflink, idmappedMounts, quota] = await Promise.all([
      canReflink(host, pool.root),
      host.mounts.canIdmap(pool.root),
      host.quotas.probe(pool.root),
    ]);
    const driver = new DirDriver(host, pool, { reflink, idmappedMounts, quota });
    await driver.sweep();
    return driver;
  },

  async destroy(host, pool) {
    const source = pool.config.source;
    const foreign = source !== undefined && source !== pool.root;
    // Delete only what we made: a foreign directory stays, and so do files that were put beside our directories.
    if (foreign && (await host.mounts.at(pool.root)) === undefined) return await deletePoolRoot(pool.root);
    for (const volume of await listDirectories(pool.root)) await host.quotas.release(pathOf(pool, volume));
    for (const entry of await readdir(pool.root).catch(() => [])) {
      if (ownEntries.test(entry) || entry.startsWith(temporaryPrefix)) await removeTree(host, join(pool.root, entry));
    }
    await host.mounts.unmount(pool.root);
    await deletePoolRoot(pool.root);
  },
};

const ownEntries = /^(\.lido-records|containers|custom|images|containers-snapshots|custom-snapshots)$/;

async function bindSource(host: Host, pool: Pool): Promise<void> {
  const source = pool.config.source;
  if (!source || source === pool.root) return;
  if (!await host.mounts.at(pool.root)) return await host.mounts.bind(source, pool.root);
  const [there, ours] = await Promise.all([stat(pool.root), stat(source)]);
  if (there.dev === ours.dev && there.ino === ours.ino) return;
  throw new LidoError("unavailable", `Something else than '${source}' is mounted at "${pool.root}"`);
}
