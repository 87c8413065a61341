/** What is in a volume, whatever it is made of and whether the daemon has it mounted or not. */
import { mkdtempSync, readFileSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { succeed } from "./command.ts";

/** As far as a test knows it: a pool as the API shows it. */
export interface SeenPool {
  readonly name: string;
  readonly driver: string;
  readonly config: Readonly<Record<string, string>>;
}

export interface SeenVolume {
  /** `custom`, `containers`, `images`: as the directories are called. */
  readonly type: string;
  /** As on disk: `default_v1`, `c1`. */
  readonly name: string;
  readonly snapshot?: string;
}

const escapeLvm = (name: string) => name.replaceAll("-", "--");

/** Hands the directory of a volume's content to `use`, mounted for as long as it takes.
 * @param directory $LIDO_DIR of the daemon. @param isWritable For a volume that nobody has mounted. */
export async function withContent<T>(
  directory: string,
  pool: SeenPool,
  volume: SeenVolume,
  use: (path: string) => T | Promise<T>,
  isWritable = false,
): Promise<T> {
  const { type, name, snapshot } = volume;
  const at = join(
    directory,
    "storage-pools",
    pool.name,
    snapshot === undefined ? join(type, name) : join(`${type}-snapshots`, name, snapshot),
  );
  const mounted = readFileSync("/proc/self/mountinfo", "utf8").split("\n").some((line) => line.split(" ")[4] === at);
  if (mounted || (pool.driver !== "lvm" && pool.driver !== "zfs")) return await use(at);
  await using stack = new AsyncDisposableStack();
  const point = mkdtempSync(join(tmpdir(), "lido-content-"));
  stack.defer(() => rmdirSync(point));
  if (pool.driver === "zfs") {
    const dataset = `${pool.config["zfs.pool_name"]}/${type}/${name}`;
    const source = snapshot === undefined ? dataset : `${dataset}@snapshot-${snapshot}`;
    await succeed(["mount", "-t", "zfs", "-o", isWritable ? "rw" : "ro", source, point]);
  } else {
    const logical = [escapeLvm(name), ...(snapshot === undefined ? [] : [escapeLvm(snapshot)])].join("-");
    const device = `${pool.config["lvm.vg_name"]}/${type}_${logical}`;
    await succeed(["lvchange", "--yes", "-ay", "-K", device]);
    stack.defer(() => succeed(["lvchange", "--yes", "-an", device]).then(() => {}));
    const filesystem = await succeed(["blkid", "-p", "-o", "value", "-s", "TYPE", `/dev/${device}`]);
    // A copy beside its origin has the same UUID; a log that another kernel left is replayed, except where nothing may be written.
    const options = [isWritable ? "rw" : "ro", ...(filesystem === "xfs" ? ["nouuid"] : [])];
    if (!isWritable && snapshot !== undefined) {
      options.push(filesystem === "btrfs" ? "rescue=nologreplay" : filesystem === "xfs" ? "norecovery" : "noload");
    }
    await succeed(["mount", "-o", options.join(","), `/dev/${device}`, point]);
  }
  stack.defer(() => succeed(["umount", point]).then(() => {}));
  return await use(point);
}
