/** The directories of the guest API's sockets: one for each running container, in which the next daemon listens again. */

import { chmodSync, closeSync, constants, mkdirSync, openSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Mounts } from "../../drivers/host/host.ts";

/** Sockets and directories use none of it: it limits what a privileged container, whose root may write to its own directory, can fill. */
const sizeMax = "100k";

/** The directories of all containers are on one small tmpfs, as on LXD: on a filesystem with other files of the host, a container would see the
 * host's space, and its `df`, which lists each device once by its first mount, could leave out the container's root. The tmpfs is mounted while any
 * container has a directory. */
export class SocketDirectory {
  readonly #root: string;
  readonly #mounts: Pick<Mounts, "at" | "mount" | "unmount">;
  #descriptor: number | undefined;
  /** Serializes the changes: the first container's directory mounts the tmpfs, the last one's deletion unmounts it. */
  #last: Promise<void> = Promise.resolve();

  /** @param root Created if missing. */
  constructor(root: string, mounts: Pick<Mounts, "at" | "mount" | "unmount">) {
    makeDirectory(root, 0o700);
    this.#root = realpathSync(root);
    this.#mounts = mounts;
  }

  path(name: string): string {
    return join(this.#root, name);
  }

  /** Names of the existing directories, also those of an earlier daemon. */
  names(): string[] {
    return readdirSync(this.#root);
  }

  /** Creates a container's directory; keeps an existing one.
   * @returns Path of the directory above by its descriptor: a socket's path may be no longer than 107 bytes. */
  make(name: string): Promise<string> {
    return this.#exclusively(async () => {
      // No mount over directories that an earlier daemon made without one: running containers use them.
      if (this.names().length === 0 && await this.#mounts.at(this.#root) === undefined) {
        const options = ["nosuid", "nodev", "noexec", "mode=0700", `size=${sizeMax}`];
        await this.#mounts.mount("lido", this.#root, "tmpfs", options);
      }
      this.#descriptor ??= openSync(this.#root, constants.O_RDONLY | constants.O_DIRECTORY);
      makeDirectory(this.path(name), 0o755);
      return `/proc/self/fd/${this.#descriptor}`;
    });
  }

  /** Deletes a container's directory with its content. */
  delete(name: string): Promise<void> {
    return this.#exclusively(async () => {
      rmSync(this.path(name), { recursive: true, force: true });
      await this.#release();
    });
  }

  /** Leaves the directories for the next daemon, if there are any. */
  close(): Promise<void> {
    return this.#exclusively(async () => {
      await this.#release();
      this.#closeDescriptor();
    });
  }

  async #release(): Promise<void> {
    if (this.names().length > 0) return;
    this.#closeDescriptor();
    // Lazily: a container that is ending may still have its directory mounted.
    await this.#mounts.unmount(this.#root, { lazy: true });
  }

  #closeDescriptor(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.then(() => {}, () => {});
    return result;
  }
}

/** Makes a directory with exactly `mode`: mkdir(2) applies the umask. */
function makeDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
}
