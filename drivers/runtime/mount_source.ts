import { statSync } from "node:fs";
import { openBeneath } from "../host/beneath.ts";
import { closeFd } from "../host/process.ts";
import type { MountSpec } from "./runtime.ts";

const O_PATH = 0x200000;

/** Runs `work` with a path that leads to a mount's source and nowhere else. A sub-path lies in a tree that containers write to: it is resolved
 * beneath the source without following symlinks, and held by a descriptor, so that what is swapped afterwards does not count.
 * @throws {SystemCallError} ENOENT, or ELOOP for a symlink on the way. */
export function withSource<T>(
  mount: Pick<MountSpec, "source" | "subPath">,
  work: (path: string, isDirectory: boolean) => T,
): T {
  if (!mount.subPath) return work(mount.source, statSync(mount.source).isDirectory());
  const fd = openBeneath(mount.source, mount.subPath, { flags: O_PATH });
  try {
    const path = `/proc/self/fd/${fd}`;
    return work(path, statSync(path).isDirectory());
  } finally {
    closeFd(fd);
  }
}
