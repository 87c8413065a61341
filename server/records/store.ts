import { closeSync, fsyncSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { readBeneath } from "../../drivers/host/files/beneath.ts";
import { removeFile, replaceFile } from "../../drivers/host/files/replace_file.ts";
import { recordsDirectory } from "../../drivers/storage/layout.ts";

/** The records of a pool, as files in a directory of their own in the pool: `pool.yaml`, `custom/<volume on disk>.yaml`, and in `open/` the marks of
 * things that are being deleted or changed, which without the database would look intact. */

/** Enough for a volume with some thousand snapshots. */
const recordMaxBytes = 16 << 20;
const suffix = ".yaml";
const custom = join(recordsDirectory, "custom"), open = join(recordsDirectory, "open");

export interface OpenIntent {
  readonly kind: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

export class RecordStore {
  readonly #root: string;

  /** @param root Root directory of an open pool. */
  constructor(root: string) {
    this.#root = root;
  }

  /** @returns undefined when it is missing. @throws {LidoError} bad_request when it is no regular file, or too large for a record. */
  readPool(): string | undefined {
    return this.#read(recordsDirectory, "pool.yaml");
  }

  async writePool(text: string): Promise<void> {
    await this.#write(recordsDirectory, "pool.yaml", text);
  }

  /** @param volume Its name on disk. */
  readVolume(volume: string): string | undefined {
    return this.#read(custom, volume + suffix);
  }

  async writeVolume(volume: string, text: string): Promise<void> {
    await this.#write(custom, volume + suffix, text);
  }

  removeVolume(volume: string): Promise<void> {
    return removeFile(this.#root, custom, volume + suffix);
  }

  /** @returns Names on disk of the volumes that have a record. */
  async volumes(): Promise<string[]> {
    const names = await readdir(join(this.#root, custom)).catch(() => []);
    return names.filter((name) => name.endsWith(suffix) && !name.startsWith(".")).map((name) =>
      name.slice(0, -suffix.length)
    );
  }

  /** The `backup.yaml` of an instance, whose volume is mounted. @param directory Of the volume, below the pool's root. */
  readBackup(directory: string): string | undefined {
    return this.#read(directory, "backup.yaml");
  }

  async writeBackup(directory: string, text: string): Promise<void> {
    await replaceFile(this.#root, directory, "backup.yaml", text, 0o400);
  }

  /** Writes the mark of an open intent. Synchronous and flushed, since the work begins when this returns. */
  openIntent(id: string, intent: OpenIntent): void {
    mkdirSync(join(this.#root, open), { recursive: true, mode: 0o700 });
    const file = openSync(join(this.#root, open, `${id}.json`), "w", 0o400);
    try {
      writeFileSync(file, JSON.stringify(intent));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  }

  closeIntent(id: string): void {
    rmSync(join(this.#root, open, `${id}.json`), { force: true });
  }

  /** @returns Id → intent; undefined for a mark that cannot be read. */
  async openIntents(): Promise<Map<string, OpenIntent | undefined>> {
    const found = new Map<string, OpenIntent | undefined>();
    for (const name of await readdir(join(this.#root, open)).catch(() => [])) {
      const id = name.replace(/\.json$/, "");
      try {
        found.set(id, JSON.parse(this.#read(open, name)!));
      } catch {
        found.set(id, undefined);
      }
    }
    return found;
  }

  #read(directory: string, name: string): string | undefined {
    const bytes = readBeneath(this.#root, join(directory, name), { maxBytes: recordMaxBytes, acrossMounts: true });
    return bytes && new TextDecoder().decode(bytes);
  }

  async #write(directory: string, name: string, text: string): Promise<void> {
    const put = () => replaceFile(this.#root, directory, name, text, 0o400);
    await put().catch(async (error) => {
      if (error.code !== "ENOENT") throw error;
      await mkdir(join(this.#root, directory), { recursive: true, mode: 0o700 });
      await put();
    });
  }
}
