/** The journal of intents. Before the host is changed, an intent records what is about to be made or deleted; when the work is done, the
 * intent is closed in the same transaction that writes the row of the thing. So at any moment, everything on the host is either in the
 * database or in an open intent.
 *
 * Each kind of intent has one `settle` function that rolls the change back or completes it (a deletion is always completed), on the host and in the
 * database. It is idempotent, trusts nothing but its payload, and serves both a failure inside the process and the start after a crash. */

import { LidoError, messageOf } from "../../api/errors.ts";
import type { ChangeOptions, Database, Row } from "../state/database.ts";
import type { IntentKind } from "./kinds.ts";

export type Cause = "failed" | "crashed";
export type Settle<Payload> = (payload: Payload, cause: Cause) => Promise<void>;

export interface Intent extends AsyncDisposable {
  /** Closes the intent in one transaction with `change`. Nothing is rolled back after that. */
  commit<T>(change: () => T): T;
  /** Calls the kind's `settle` unless the intent was committed. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Opens an intent of one kind. */
export type OpenIntent<Payload> = (payload: Payload) => Intent;

/** Called for each intent: before its work begins, and when it is closed. Must not throw. */
export interface JournalWatcher {
  opened(id: number, kind: string, payload: object): void;
  closed(id: number): void;
}

export interface JournalLog {
  warn(context: object, message: string): void;
}

export class Journal {
  readonly #database: Database;
  readonly #log: JournalLog;
  readonly #kinds = new Map<string, Settle<never>>();
  /** Ids of intents whose work is running. */
  readonly #active = new Set<number>();
  /** Ids of intents that were rolled back or completed, but whose rows could not be deleted: the disk was full. */
  readonly #settled = new Set<number>();
  /** Id of the latest intent. SQLite reuses the id of a deleted row, and a new intent must not get an id that is in `#settled`. */
  #lastId = 0;
  readonly #observe: (point: string) => void;
  #watcher: JournalWatcher | undefined;

  /** @param observe Called at each point where a kill would leave the host in a different state; for tests. */
  constructor(database: Database, log: JournalLog, observe: (point: string) => void = () => {}) {
    this.#database = database;
    this.#log = log;
    this.#observe = observe;
  }

  /** Declares a kind of intent. @param settle See the header. @param options.untilReboot Whether all that its work makes ends with a power cut.
   * @returns A function that opens an intent of this kind. */
  kind<Payload extends object>(
    name: IntentKind,
    settle: Settle<Payload>,
    options: Pick<ChangeOptions, "untilReboot"> = {},
  ): OpenIntent<Payload> {
    if (this.#kinds.has(name)) throw new Error(`journal: "${name}" is declared twice`);
    this.#kinds.set(name, settle as Settle<never>);
    return (payload) => this.#open(name, payload, settle, options);
  }

  watch(watcher: JournalWatcher): void {
    this.#watcher = watcher;
  }

  #open<Payload extends object>(
    name: string,
    payload: Payload,
    settle: Settle<Payload>,
    options: Pick<ChangeOptions, "untilReboot">,
  ): Intent {
    // Also delete the rows of settled intents whose own delete failed (disk full).
    const makesRoom = { makesRoom: name.endsWith(".delete") };
    const id = this.#database.transaction(() => {
      for (const done of this.#settled) if (!this.#close(done)) this.#settled.delete(done);
      this.#refuseUnsettled(name, payload);
      const { highest } = this.#database.get("SELECT coalesce(max(id), 0) AS highest FROM journal")!;
      this.#lastId = Math.max(this.#lastId, Number(highest)) + 1;
      return this.#database.run(
        "INSERT INTO journal (id, kind, payload, created_at) VALUES (?, ?, ?, ?)",
        this.#lastId,
        name,
        JSON.stringify(payload),
        new Date().toISOString(),
      ).id;
    }, { ...makesRoom, ...options });
    this.#active.add(id);
    this.#watcher?.opened(id, name, payload);
    this.#observe(`${name} opened`);
    let closed = false;
    return {
      commit: (change) => {
        this.#observe(`${name} to be committed`);
        const result = this.#database.transaction(() => {
          const result = change();
          this.#close(id);
          return result;
        }, makesRoom);
        closed = true;
        this.#active.delete(id);
        this.#watcher?.closed(id);
        this.#observe(`${name} committed`);
        return result;
      },
      [Symbol.asyncDispose]: async () => {
        if (closed) return;
        closed = true;
        this.#observe(`${name} to be settled`);
        try {
          await settle(payload, "failed");
          this.#settled.add(id);
          this.#close(id);
          this.#settled.delete(id);
          this.#watcher?.closed(id);
          this.#observe(`${name} settled`);
        } catch (error) {
          // The intent stays open, and the daemon's next start tries again. The caller gets the error of its work, not this one.
          this.#log.warn(
            { intent: name, payload, error: messageOf(error) },
            "could not settle an intent; left for the next start",
          );
        } finally {
          this.#active.delete(id);
        }
      },
    };
  }

  /** Rolls back or completes every intent that a killed daemon left open, the latest first. Called before any request is served, and again when an
   * unavailable pool has become available.
   * @returns The number of open intents, and the ones that failed again. */
  async recover(): Promise<{ open: number; unsettled: { kind: string; error: string }[] }> {
    const rows = this.#database.all("SELECT id, kind, payload FROM journal ORDER BY id DESC")
      .filter(({ id }) => !this.#active.has(Number(id)));
    const unsettled: { kind: string; error: string }[] = [];
    for (const row of rows) {
      const kind = String(row.kind);
      try {
        await this.#settleRow(row);
      } catch (error) {
        unsettled.push({ kind, error: messageOf(error) });
        this.#log.warn({ intent: kind, payload: row.payload, error: messageOf(error) }, "could not settle an intent");
      }
    }
    return { open: rows.length, unsettled };
  }

  /** Open intents without running work: those whose rollback failed, and those of an earlier daemon. */
  unsettled(): { id: number; kind: string; payload: string }[] {
    return this.#database.all("SELECT id, kind, payload FROM journal ORDER BY id DESC")
      .map((row) => ({ id: Number(row.id), kind: String(row.kind), payload: String(row.payload) }))
      .filter(({ id }) => !this.#active.has(id));
  }

  /** Open intents of one kind, the oldest first. @returns `isActive`: whether its work is running now. */
  openOf<Payload>(kind: string): { id: number; payload: Payload; isActive: boolean }[] {
    return this.#database.all("SELECT id, payload FROM journal WHERE kind = ? ORDER BY id", kind).map((row) => ({
      id: Number(row.id),
      payload: JSON.parse(String(row.payload)) as Payload,
      isActive: this.#active.has(Number(row.id)),
    }));
  }

  /** Retries the open intents that conflict with an intent, which the caller is about to open under its lock. If a retry fails, the new
   * intent is refused. @param kind Kind of the new intent. */
  async settleBefore(kind: string, payload: object): Promise<void> {
    for (const row of this.unsettled().filter((row) => isInTheWay(row, kind, payload))) {
      await this.settle(row.id).catch((error) =>
        this.#log.warn({ intent: row.kind, payload: row.payload, error: messageOf(error) }, "still not settled")
      );
    }
  }

  /** Retries one open intent. @throws What its `settle` throws. */
  async settle(id: number): Promise<void> {
    const row = this.#database.get("SELECT id, kind, payload FROM journal WHERE id = ?", id);
    if (row && !this.#active.has(id)) await this.#settleRow(row);
  }

  async #settleRow(row: Row): Promise<void> {
    const kind = String(row.kind);
    const settle = this.#kinds.get(kind) as Settle<object> | undefined;
    if (!settle) throw new Error("this lido does not know its kind");
    const id = Number(row.id);
    this.#active.add(id);
    try {
      this.#observe(`${kind} to be settled`);
      await settle(JSON.parse(String(row.payload)), "crashed");
      this.#settled.add(id);
      this.#close(id);
      this.#settled.delete(id);
      this.#watcher?.closed(id);
      this.#observe(`${kind} settled`);
    } finally {
      this.#active.delete(id);
    }
  }

  /** Refuses an intent that conflicts with an open one: the later rollback of that one would delete or rename the new thing of that name.
   * @throws {LidoError} conflict. */
  #refuseUnsettled(kind: string, payload: object): void {
    const { name } = payload as Record<string, unknown>;
    if (!this.unsettled().some((row) => isInTheWay(row, kind, payload))) return;
    throw new LidoError(
      "conflict",
      `An earlier operation on "${name}" was cut off and could not be settled; "lido admin check --repair" tries again`,
    );
  }

  /** Closes the open intents of a deleted pool, volume or instance whose work is not running: they would apply to a later one of the same name.
   * Called in the transaction that deletes its row. @param kind Kind of the intent that deletes it. */
  forget(kind: string, payload: object): void {
    const subject = subjectOf(kind, payload);
    if (subject === undefined) return;
    for (const row of this.unsettled()) {
      const of = JSON.parse(row.payload);
      const isGone = kind === "pool.delete" ? of.pool === subject : subjectOf(row.kind, of) === subject;
      if (!isGone) continue;
      this.#close(row.id);
      this.#watcher?.closed(row.id);
    }
  }

  /** @returns Whether the row existed. */
  #close(id: number): boolean {
    return this.#database.run("DELETE FROM journal WHERE id = ?", id).changes > 0;
  }
}

/** Whether `row`, rolled back or completed later, would delete or rename what an intent of `kind` is about to make. */
function isInTheWay(row: { kind: string; payload: string }, kind: string, payload: object): boolean {
  // An open intent names its subject: after a rename it would not find it, and would apply to the next thing of the old name.
  if (
    /^(volume|instance)\.rename$/.test(kind) &&
    subjectOf(row.kind, JSON.parse(row.payload)) === subjectOf(kind, payload)
  ) {
    return true;
  }
  if (!/\.(create|delete|rename|refresh)$/.test(row.kind) || nounOf(row.kind) !== nounOf(kind)) return false;
  const ours = payload as Record<string, unknown>, other = JSON.parse(row.payload) as Record<string, unknown>;
  if (other.pool !== ours.pool || other.type !== ours.type) return false;
  return [ours.name, ours.to].some((name) => name !== undefined && (name === other.name || name === other.to));
}

/** The subject of an intent: a pool, an instance with its volume, or a volume with its snapshots; undefined for an image or a profile. */
function subjectOf(kind: string, payload: object): string | undefined {
  const { pool, type = "custom", name, volume } = payload as Readonly<Record<string, unknown>>;
  if (kind.startsWith("pool.")) return String(name);
  if (kind.startsWith("instance.") || type === "container") return `container/${name}`;
  if (pool === undefined) return undefined;
  return `${pool}/${type}/${volume === undefined ? name : `default_${volume}`}`;
}

/** "volume" of "volume.create". */
function nounOf(kind: string): string {
  return kind.slice(0, kind.lastIndexOf("."));
}
