import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { WrittenRoot } from "../files/file_messages.ts";
import type { MountPlace } from "../runtime.ts";

/** A mount that we attached to a container. It is recorded, so that it can be detached whatever has become of its source. */
export interface Attached extends Omit<MountPlace, "foreign"> {
  readonly root: WrittenRoot;
  /** Identities of the mounts below it that came with it. */
  readonly below: readonly string[];
}

/** The mounts that we attached to a container, in a file in its directory for the next daemon. A mount may be missing here, because an older daemon
 * without this file started the container or the daemon was killed just then; it is then identified by its source. */
export class AttachedMounts {
  readonly #directory: string;
  #all: Attached[] | undefined;

  /** @param directory The container's. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  find({ target, source, subPath }: MountPlace): Attached | undefined {
    return this.#read().find((one) => one.target === target && one.source === source && one.subPath === subPath);
  }

  set(...mounts: readonly Attached[]): void {
    const isOther = ({ target }: Attached) => mounts.every((one) => one.target !== target);
    this.#write([...this.#read().filter(isOther), ...mounts]);
  }

  delete(mount: MountPlace): void {
    const found = this.find(mount);
    if (found) this.#write(this.#read().filter((one) => one !== found));
  }

  #read(): Attached[] {
    return this.#all ??= readFrom(this.#file);
  }

  /** ENOENT is no error: a container that has ended needs no file. */
  #write(all: Attached[]): void {
    this.#all = all;
    try {
      writeFileSync(`${this.#file}.new`, JSON.stringify(all), { mode: 0o600 });
      renameSync(`${this.#file}.new`, this.#file);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error;
    }
  }

  get #file(): string {
    return join(this.#directory, "mounts.json");
  }
}

function readFrom(file: string): Attached[] {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return [];
  }
}
