import { isAbsolute } from "node:path";
import { LidoError, messageOf } from "../../api/errors.ts";
import type { Mounts } from "../../drivers/host/host.ts";
import { mountAt } from "../../drivers/host/mounts/mounts.ts";
import { isAway, reasonOf } from "../../drivers/host/files/reasons.ts";
import type { Pool } from "../../drivers/storage/driver.ts";

/** Looks at a path of the host that may never answer. @param tenant Whose it is.
 * @throws {LidoError} bad_request, naming the path, when it does not answer in time. @see Runtime.lookAtSource */
export type LookAt = (tenant: string, path: string) => Promise<unknown>;

/** Whoever touches it in between may be held. A look is one stat(2). */
const lookEveryMs = 3_000;
/** From then on nobody touches what was asked and has not answered; it may be a busy host's. */
const pendingMaxMs = 5_000;

/** The sources of pools that are on other hosts, or on a filesystem that a process serves: one that never answers would hold whoever touches it, and the
 * daemon has few threads. It is looked at by a process that may hang, before it is opened and every few seconds from then on; a pool whose source does
 * not answer is unavailable until it does. */
export class PoolSources {
  readonly #lookAt: LookAt;
  /** By name, the paths of those that are open and may not answer. */
  readonly #watched = new Map<string, string>();
  /** Why a pool is not to be touched. */
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

  /** Of a pool that is known. @throws {LidoError} When its source does not answer, or what is at its place. */
  async need(pool: Pool): Promise<void> {
    const { name, root, config } = pool;
    await this.#needSource(pool, tenantOf(name));
    if (mountAt(root)?.mayHang) {
      await this.#lookAt(tenantOf(name), root).catch(async (error) => {
        // Its source answers, so it was mounted anew: ours is of a process that has ended, and never answers again.
        if (config.source === root || (error.cause as { code?: unknown } | undefined)?.code !== "ENOTCONN") throw error;
        await this.#mounts.unmount(root, { lazy: true });
      });
    }
    this.#silent.delete(name);
  }

  /** The same of one that is not: all of these have one share. */
  async needNew(pool: Pool): Promise<void> {
    await this.#needSource(pool, newPools);
  }

  /** Whether something is at a path where a pool may have been; no when it does not answer. */
  async isThere(path: string): Promise<boolean> {
    return await this.#lookAt(newPools, path).then((found) => found !== undefined, () => false);
  }

  async #needSource({ config: { source }, root, diskFile }: Pool, tenant: string): Promise<void> {
    if (source === undefined || !isAbsolute(source) || source.startsWith("/dev/")) return;
    if (source !== root && source !== diskFile) await this.#lookAt(tenant, source);
  }

  /** From now on, until `forget`. */
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

  /** @returns Why the pool is not to be touched; undefined when it answered last. */
  silence(name: string): string | undefined {
    const reason = this.#silent.get(name), since = this.#lookings.get(name)?.since, path = this.#watched.get(name);
    if (reason !== undefined || since === undefined || path === undefined) return reason;
    const ms = performance.now() - since;
    return ms > this.#pendingMaxMs ? `"${path}" has not answered for ${Math.round(ms / 1000)} s` : undefined;
  }

  /** Before work on a pool begins: one that has gone silent since it was looked at last would hold who touches it, and all that he holds.
   * @returns undefined for one that cannot; else resolves when it has answered, or is known not to. */
  answered(name: string): Promise<void> | undefined {
    const root = this.#watched.get(name);
    if (root === undefined) return undefined;
    if (this.#silent.has(name)) return Promise.resolve();
    return this.#lookings.get(name)?.promise ?? this.#look(name, root);
  }

  /** Asks each that is not being asked. */
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

  /** What an error says of a pool whose filesystem is away; the error itself when it says nothing. The pool is looked at, then. */
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

/** Whether a text names a path or what is below it. */
function names(text: string, path: string): boolean {
  return text.split(path).slice(1).some((rest) => /^(?:$|[/"'])/.test(rest));
}

/** No instance has a name with a slash. */
const newPools = "/pools";

function tenantOf(pool: string): string {
  return `${newPools}/${pool}`;
}
