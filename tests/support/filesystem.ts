/** Small filesystems on loop files, for tests that fill them or unmount them under the daemon. */
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { command, succeed } from "./command.ts";

const formats = {
  ext4: ["mkfs.ext4", "-q", "-F", "-m", "0"],
  xfs: ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
  btrfs: ["mkfs.btrfs", "-q", "-f"],
} as const;

export class Filesystem implements AsyncDisposable {
  /** Mount point. */
  readonly path: string;
  readonly #base: string;
  readonly #file: string;

  private constructor(base: string) {
    this.#base = base;
    this.path = join(base, "fs");
    this.#file = join(base, "fs.img");
  }

  static async make(type: keyof typeof formats, mebibytes: number): Promise<Filesystem> {
    const filesystem = new Filesystem(mkdtempSync(join(tmpdir(), "lido-fs-")));
    const file = openSync(filesystem.#file, "w");
    ftruncateSync(file, mebibytes * 1048576);
    closeSync(file);
    await succeed([...formats[type], filesystem.#file]);
    mkdirSync(filesystem.path);
    await succeed(["mount", "-o", "loop", filesystem.#file, filesystem.path]);
    return filesystem;
  }

  /** Uses up all free space. */
  fill(): void {
    fillWith(this.path);
  }

  /** Frees the space again. */
  free(): void {
    for (let size = 1 << 20; size >= 512; size /= 2) rmSync(join(this.path, `filler-${size}`), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await command(["umount", this.path]);
    rmSync(this.#base, { recursive: true, force: true });
  }
}

/** Uses up all free space of a filesystem. @param directory A directory on it. */
export function fillWith(directory: string): void {
  const piece = new Uint8Array(1 << 20).map((_, index) => index * 7919 >> 3);
  for (let size = piece.length; size >= 512; size /= 2) {
    const file = openSync(join(directory, `filler-${size}`), "w");
    try {
      for (;;) writeSync(file, piece, 0, size);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    } finally {
      closeSync(file);
    }
  }
}
