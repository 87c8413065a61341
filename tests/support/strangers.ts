/** Unknown volumes and snapshots, planted behind the daemon's back in pools that are directory trees (dir, btrfs). */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { tree } from "./tree.ts";

export class Strangers {
  /** Path → digest when planted. */
  readonly #planted = new Map<string, string>();

  /** @param path Path of a volume or a snapshot. @param kind A subvolume is one of btrfs. @param files Additional files in it. */
  plant(
    path: string,
    kind: "directory" | "subvolume" | "empty directory" = "directory",
    files: Record<string, string> = {},
  ): void {
    mkdirSync(dirname(path), { recursive: true });
    if (kind === "subvolume") execFileSync("btrfs", ["-q", "subvolume", "create", path]);
    else mkdirSync(path);
    if (kind !== "empty directory") {
      mkdirSync(join(path, "rootfs/etc"), { recursive: true });
      writeFileSync(join(path, "rootfs/etc/passwd"), `precious ${path}`);
      for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
    }
    // The mode that the daemon sets on each such directory when it opens a pool, known or not: only root may pass.
    if (/\/containers(-snapshots)?\//.test(path)) chmodSync(path, 0o100);
    this.#planted.set(path, digest(path));
  }

  /** Updates the paths of planted volumes that moved with a renamed parent directory. */
  follow(from: string, to: string): void {
    for (const [path, was] of [...this.#planted]) {
      const moved = path.replace(`${from}/`, `${to}/`);
      if (moved === path || existsSync(path) || !existsSync(moved)) continue;
      this.#planted.delete(path);
      this.#planted.set(moved, was);
    }
  }

  /** Lines for the volumes that have changed or are gone. */
  changed(): string[] {
    return [...this.#planted].flatMap(([path, was]) => {
      if (!existsSync(path)) return [`${path} is gone`];
      return digest(path) === was ? [] : [`${path} has changed`];
    });
  }

  /** Removes one planted volume, or all. */
  remove(path?: string): void {
    for (const one of path === undefined ? [...this.#planted.keys()] : [path]) {
      if (existsSync(one) && lstatSync(one).ino === 256) execFileSync("btrfs", ["-q", "subvolume", "delete", one]);
      rmSync(one, { recursive: true, force: true });
      // Also remove the parent of the last snapshot.
      const parent = dirname(one);
      if (parent.includes("-snapshots/") && existsSync(parent) && readdirSync(parent).length === 0) rmdirSync(parent);
      this.#planted.delete(one);
    }
  }
}

/** All content, and the inode number, which tells it from a copy. */
function digest(path: string): string {
  return JSON.stringify([lstatSync(path).ino, tree(path)]);
}
