/** Where the sockets of the guest API are: a directory for each container that runs, in which the next daemon listens again. */

import { chmodSync, closeSync, constants, mkdirSync, openSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Mounts } from "../../drivers/host/host.ts";

/** Sockets and directories take none of it: it is what a privileged container, whose root may write to its own, can fill. */
const sizeMax = "100k";

/** The directories of all containers are on one small tmpfs, as on LXD: a filesystem that the host has other files on would show the host's space
 * in a container, and `df` tells of a device once, by whichever of its mounts comes first: it would leave the container's root out. It is mounted
 * while a container has a directory. */
export class SocketDirectory {
  readonly #root: string;
  readonly #mounts: Pick<Mounts, "at" | "mount" | "unmount">;
  #descriptor: number | undefined;
  /** One at a time: the first container's mounts it, the last one's unmounts it. */
  #last: Promise<void> = Promise.resolve();

  /** @param root Made if it is not there. */
  constructor(root: string, mounts: Pick<Mounts, "at" | "mount" | "unmount">) {
    makeDirectory(root, 0o700);
    this.#root = realpathSync(root);
    this.#mounts = mounts;
  }

  path(name: string): string {
    return join(this.#root, name);
  }

  /** Names of the directories that there are; those of an earlier daemon, too. */
  names(): string[] {
    return readdirSync(this.#root);
  }

  /** Makes a container's directory; one that is there stays as it is.
   * @returns Path of the directory above by its descriptor: a socket's path may be no longer than 107 bytes. */
  make(name: string): Promise<string> {
    return this.#exclusively(async () => {
      // Where an earlier daemon had its directories without a mount, their containers look there as long as they run.
      if (this.names().length === 0 && await this.#mounts.at(this.#root) === undefined) {
        const options = ["nosuid", "nodev", "noexec", "mode=0700", `size=${sizeMax}`];
        await this.#mounts.mount("lido", this.#root, "tmpfs", options);
      }
      this.#descriptor ??= openSync(this.#root, constants.O_RDONLY | constants.O_DIRECTORY);
      makeDirectory(this.path(name), 0o755);
      return `/proc/self/fd/${this.#descriptor}`;
    });
  }

  /** Deletes a container's directory with what is in it. */
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
    // Lazily: a container that is ending may have its part still.
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

/** With exactly `mode`: mkdir's own is cut by the umask. */
function makeDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
}
