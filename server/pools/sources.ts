import { isAbsolute } from "node:path";
import { LidoError, messageOf } from "../../api/errors.ts";
import type { Mounts } from "../../drivers/host/host.ts";
import { mountAt } from "../../drivers/host/mounts/mounts.ts";
import { isAway, reasonOf } from "../../drivers/host/files/reasons.ts";
import type { Pool } from "../../drivers/storage/driver.ts";

/** Looks at a path of the host that may never answer. @param tenant Whose share of the file processes the look uses.
 * @throws {LidoError} bad_request, naming the path, when it does not answer in time. @see Runtime.lookAtSource */
export type LookAt = (tenant: string, path: string) => Promise<unknown>;

/** A caller that touches the source between two looks may hang. A look is one stat(2). */
const lookEveryMs = 3_000;
/** A source that has not answered for longer makes its pool unavailable; not earlier, since a busy host may be slow. */
const pendingMaxMs = 5_000;

/** The sources of pools that are on other hosts, or on a filesystem that a process serves. A source that never answers blocks each thread that
 * touches it, and the daemon has few. So a process that may hang looks at it before it is opened, and every few seconds from then on; a pool whose
 * source does not answer is unavailable until it does. */
export class PoolSources {
  readonly #lookAt: LookAt;
  /** Paths of the open pools that may not answer, by the pool's name. */
  readonly #watched = new Map<string, string>();
  /** Why a pool must not be touched, by the pool's name. */
  readonly #silent = new Map<string, string>();
  readonly #lookings = new Map<string, { readonly promise: Promise<void>; readonly since: number }>();
  readonly #pendingMaxMs: number;
  readonly #mounts: Pick<Mounts, "unmount">;
  #timer: NodeJS.Timeout | undefined;

  constructor(lookAt: LookAt, mounts: Pick<Mounts, "unmount">, options: { readonly pendingMaxMs?: number } = {}) {
    this.#lookAt = lookAt;
    this.#mounts = mounts;
    this.#pendingMaxMs = options.pendingMaxMs ?? pendingMaxMs;
  }

  /** For a known pool. @throws {LidoError} When its source, or the filesystem at its root, does not answer. */
  async need(pool: Pool): Promise<void> {
    const { name, root, config } = pool;
    await this.#needSource(pool, tenantOf(name));
    if (mountAt(root)?.mayHang) {
      await this.#lookAt(tenantOf(name), root).catch(async (error) => {
        // The source answers, so it was mounted again; the mount at the root belongs to a process that has ended, and never answers again.
        if (config.source === root || (error.cause as { code?: unknown } | undefined)?.code !== "ENOTCONN") throw error;
        await this.#mounts.unmount(root, { lazy: true });
      });
    }
    this.#silent.delete(name);
  }

  /** As `need`, for a pool that is not known: all of these are one tenant. */
  async needNew(pool: Pool): Promise<void> {
    await this.#needSource(pool, newPools);
  }

  /** Whether something is at a path where a pool may have been; false when it does not answer. */
  async isThere(path: string): Promise<boolean> {
    return await this.#lookAt(newPools, path).then((found) => found !== undefined, () => false);
  }

  async #needSource({ config: { source }, root, diskFile }: Pool, tenant: string): Promise<void> {
    if (source === undefined || !isAbsolute(source) || source.startsWith("/dev/")) return;
    if (source !== root && source !== diskFile) await this.#lookAt(tenant, source);
  }

  /** Every few seconds, until `forget`: looks at an open pool whose filesystem may not answer. */
  watch({ name, root }: Pool): void {
    if (!mountAt(root)?.mayHang) return this.forget(name);
    this.#watched.set(name, root);
    this.#timer ??= setInterval(() => this.look(), lookEveryMs).unref();
  }

  forget(name: string): void {
    this.#watched.delete(name);
    this.#silent.delete(name);
    if (this.#watched.size === 0) this.close();
  }

  /** @returns Why the pool must not be touched; undefined when it answered last time. */
  silence(name: string): string | undefined {
    const reason = this.#silent.get(name), since = this.#lookings.get(name)?.since, path = this.#watched.get(name);
    if (reason !== undefined || since === undefined || path === undefined) return reason;
    const ms = performance.now() - since;
    return ms > this.#pendingMaxMs ? `"${path}" has not answered for ${Math.round(ms / 1000)} s` : undefined;
  }

  /** Called before work on a pool begins: if the pool has gone silent since the last look, the work would hang, with the locks that it holds.
   * @returns undefined for a pool that cannot hang; else resolves when the pool has answered, or is known not to. */
  answered(name: string): Promise<void> | undefined {
    const root = this.#watched.get(name);
    if (root === undefined) return undefined;
    if (this.#silent.has(name)) return Promise.resolve();
    return this.#lookings.get(name)?.promise ?? this.#look(name, root);
  }

  /** Looks at each watched pool that has no look pending. */
  look(): void {
    for (const [name, root] of this.#watched) if (!this.#lookings.has(name)) void this.#look(name, root);
  }

  #look(name: string, root: string): Promise<void> {
    const promise = this.#lookAt(tenantOf(name), root).then(
      () => void this.#silent.delete(name),
      (error) => void (this.#watched.has(name) && this.#silent.set(name, messageOf(error))),
    ).finally(() => this.#lookings.delete(name));
    this.#lookings.set(name, { promise, since: performance.now() });
    return promise;
  }

  /** Turns an error that names a path of a pool whose filesystem is gone into one about the pool, and looks at all watched pools.
   * @returns Other errors as they are. */
  explain(error: unknown): unknown {
    if (!isAway(error) && !isAway((error as { cause?: unknown } | null)?.cause)) return error;
    const text = messageOf(error);
    const [name, root] = [...this.#watched].find(([, root]) => names(text, root)) ?? [];
    if (name === undefined) return error;
    this.look();
    const reason = reasonOf(error) ?? messageOf(error);
    return new LidoError("unavailable", `Storage pool "${name}" is unavailable: "${root}": ${reason}`, {
      cause: error,
    });
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

/** Whether a text names a path or one below it. */
function names(text: string, path: string): boolean {
  return text.split(path).slice(1).some((rest) => /^(?:$|[/"'])/.test(rest));
}

/** No instance has a name with a slash. */
const newPools = "/pools";

function tenantOf(pool: string): string {
  return `${newPools}/${pool}`;
}
