import { readFileSync, realpathSync } from "node:fs";
import { posix } from "node:path";
import { openBeneath } from "../files/beneath.ts";
import type { MountEntry } from "../host.ts";
import { libc } from "../ffi/libc.ts";
import { mountOfFd } from "./mounted_at.ts";
import { parseMountInfo } from "./mounts.ts";

const O_PATH = 0x200000;

/** Mount points below a host directory that can be cloned: not those covered by another mount, nor unbindable
 * ones. @param directory May be a name below /proc/self/fd. @returns Paths in it, the outer ones first. */
export function submountsOf(directory: string): string[] {
  const top = realpathSync(directory);
  const lines = mountInfo().split("\n").filter((line) => line !== "" && !/ unbindable .*- /.test(line));
  const below = parseMountInfo(lines.join("\n")).map(({ target }) => posix.relative(top, target))
    .filter((path) => path !== "" && path !== ".." && !path.startsWith("../"));
  return [...new Set(below)].filter((path) => isMountPoint(directory, path)).sort(byDepth);
}

/** @returns The mount that a path is on. */
export function mountOn(path: string): MountEntry | undefined {
  const real = realpathSync(path);
  return parseMountInfo(mountInfo()).findLast(({ target }) =>
    real === target || real.startsWith(target === "/" ? "/" : `${target}/`)
  );
}

function mountInfo(): string {
  return readFileSync("/proc/thread-self/mountinfo", "utf8");
}

function isMountPoint(directory: string, path: string): boolean {
  let fd: number;
  try {
    fd = openBeneath(directory, path, { flags: O_PATH, acrossMounts: true });
  } catch {
    return false;
  }
  try {
    return mountOfFd(fd) !== undefined;
  } finally {
    libc.close(fd);
  }
}

function byDepth(a: string, b: string): number {
  const depth = (path: string) => path.split("/").length;
  return depth(a) - depth(b) || (a < b ? -1 : 1);
}
