/** Access to a volume's content on any driver, whether the daemon has it mounted or not. */
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHost } from "../../drivers/host/real.ts";
import { filesystemOn } from "../../drivers/storage/lvm/filesystem.ts";
import { succeed } from "./command.ts";

/** The fields of the API's pool that are needed here. */
export interface SeenPool {
  readonly name: string;
  readonly driver: string;
  readonly config: Readonly<Record<string, string>>;
}

export interface SeenVolume {
  /** Name of the directory: `custom`, `containers`, `images`. */
  readonly type: string;
  /** Name on disk: `default_v1`, `c1`. */
  readonly name: string;
  readonly snapshot?: string;
}

/** @param name Name in the API: `volume`, or `volume/snapshot`. */
export function customVolume(name: string): SeenVolume {
  const [volume, snapshot] = name.split("/");
  return { type: "custom", name: `default_${volume}`, ...(snapshot === undefined ? {} : { snapshot }) };
}

const escapeLvm = (name: string) => name.replaceAll("-", "--");
const host = createHost();

/** Calls `use` with the directory of a volume's content, which is mounted meanwhile.
 * @param directory The daemon's $LIDO_DIR. @param isWritable For a volume that is not mounted elsewhere. */
export async function withContent<T>(
  directory: string,
  pool: SeenPool,
  volume: SeenVolume,
  use: (path: string) => T | Promise<T>,
  isWritable = false,
): Promise<T> {
  return await withContents(directory, pool, [volume], ([path]) => use(path!), isWritable);
}

/** The same for several volumes of a pool at once: starting a process is slow on an emulated processor. @param use Gets the directories, in order. */
export async function withContents<T>(
  directory: string,
  pool: SeenPool,
  volumes: readonly SeenVolume[],
  use: (paths: readonly string[]) => T | Promise<T>,
  isWritable = false,
): Promise<T> {
  const mounted = new Set((await host.mounts.list()).map(({ target }) => target));
  const places = volumes.map(({ type, name, snapshot }) =>
    join(
      directory,
      "storage-pools",
      pool.name,
      snapshot === undefined ? join(type, name) : join(`${type}-snapshots`, name, snapshot),
    )
  );
  if (pool.driver !== "lvm" && pool.driver !== "zfs") return await use(places);
  await using stack = new AsyncDisposableStack();
  const away = volumes.filter((_, index) => !mounted.has(places[index]!));
  if (pool.driver === "lvm" && away.length > 0) {
    const names = away.map((volume) => `${pool.config["lvm.vg_name"]}/${logicalName(volume)}`);
    await succeed(["lvchange", "--yes", "-ay", "-K", ...names]);
    stack.defer(() => succeed(["lvchange", "--yes", "-an", ...names]).then(() => {}));
  }
  const paths: string[] = [];
  for (const [index, volume] of volumes.entries()) {
    if (!away.includes(volume)) {
      paths.push(places[index]!);
      continue;
    }
    const point = mkdtempSync(join(tmpdir(), "lido-content-"));
    stack.defer(() => rmdirSync(point));
    const { source, type, options } = await sourceOf(pool, volume, isWritable);
    await host.mounts.mount(source, point, type, [isWritable ? "rw" : "ro", ...options]);
    stack.defer(() => host.mounts.unmount(point));
    paths.push(point);
  }
  return await use(paths);
}

function logicalName({ type, name, snapshot }: SeenVolume): string {
  return `${type}_${[escapeLvm(name), ...(snapshot === undefined ? [] : [escapeLvm(snapshot)])].join("-")}`;
}

async function sourceOf(
  pool: SeenPool,
  volume: SeenVolume,
  isWritable: boolean,
): Promise<{ source: string; type: string; options: string[] }> {
  const { type, name, snapshot } = volume;
  if (pool.driver === "zfs") {
    const dataset = `${pool.config["zfs.pool_name"]}/${type}/${name}`;
    return { source: snapshot === undefined ? dataset : `${dataset}@snapshot-${snapshot}`, type: "zfs", options: [] };
  }
  const source = `/dev/${pool.config["lvm.vg_name"]}/${logicalName(volume)}`;
  const filesystem = await filesystemOn(source);
  // nouuid: a copy beside its origin has the same UUID. A log of another mount is replayed, except where writing is not allowed.
  const options = filesystem === "xfs" ? ["nouuid"] : [];
  if (!isWritable && snapshot !== undefined) {
    options.push(filesystem === "btrfs" ? "rescue=nologreplay" : filesystem === "xfs" ? "norecovery" : "noload");
  }
  return { source, type: filesystem, options };
}
