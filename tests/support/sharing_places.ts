/** The pools of the sharing tests. $LIDO_SHARING_POOLS adds more, as JSON of the same shape: those of a guest with LVM and ZFS. */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "./command.ts";
import type { Daemon } from "./daemon.ts";

export interface SharingPlace {
  readonly name: string;
  readonly driver: string;
  /** Words of `storage create`. */
  readonly config: readonly string[];
  /** Filesystem of a loop file that becomes the pool's source. */
  readonly format?: readonly string[];
  /** Whether the pool lies on an overlay, which has no idmapped mounts. */
  readonly isOverlaid?: boolean;
}

const ext4 = ["mkfs.ext4", "-q", "-F"];

// A pattern that selects places by name, as in the conformance suite.
const wanted = new RegExp(process.env.LIDO_TEST_PLACES ?? "");

export const sharingPlaces: readonly SharingPlace[] = ([
  { name: "dir on ext4", driver: "dir", config: [], format: ext4 },
  { name: "dir on xfs", driver: "dir", config: [], format: ["mkfs.xfs", "-q", "-f"] },
  { name: "btrfs", driver: "btrfs", config: ["size=512MiB"] },
  ...JSON.parse(process.env.LIDO_SHARING_POOLS ?? "[]"),
] as SharingPlace[]).filter(({ name }) => wanted.test(name));

/** A place without idmapped mounts, where owners must be changed on disk. */
export const fallbackPlace: SharingPlace = {
  name: "dir on an overlay",
  driver: "dir",
  config: [],
  format: ["mkfs.ext4", "-q", "-F"],
  isOverlaid: true,
};

/** ZFS has idmapped mounts since 2.2. */
export function hasIdmappedMounts({ driver, isOverlaid }: SharingPlace): boolean {
  if (driver === "zfs") return !/^(0|2\.[01])\./.test(readFileSync("/sys/module/zfs/version", "utf8"));
  return !isOverlaid;
}

/** Makes the pool "pool" on `place`. @returns Disposing, after the daemon's end, removes the pool's filesystem. */
export async function makePool(daemon: Daemon, place: SharingPlace): Promise<AsyncDisposable> {
  const stack = new AsyncDisposableStack();
  const config = [...place.config];
  if (place.format) {
    const base = `${daemon.directory}.place`;
    stack.defer(() => succeed(["rm", "-rf", base]).then(() => {}));
    mkdirSync(join(base, "filesystem"), { recursive: true });
    const file = join(base, "filesystem.img"), at = join(base, "filesystem");
    await succeed(["truncate", "-s", "600M", file]);
    await succeed([...place.format, file]);
    await succeed(["mount", "-o", "loop", file, at]);
    stack.defer(() => succeed(["umount", at]).then(() => {}));
    let source = join(at, "source");
    if (place.isOverlaid) {
      for (const name of ["lower", "upper", "work", "source"]) mkdirSync(join(at, name));
      const options = `lowerdir=${join(at, "lower")},upperdir=${join(at, "upper")},workdir=${join(at, "work")}`;
      await succeed(["mount", "-t", "overlay", "none", "-o", options, source]);
      stack.defer(() => succeed(["umount", join(at, "source")]).then(() => {}));
      source = join(source, "pool");
    }
    mkdirSync(source);
    config.push(`source=${source}`);
  }
  await daemon.ok("storage", "create", "pool", place.driver, ...config);
  return { [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
