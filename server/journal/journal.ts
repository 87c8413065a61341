/** The journal of intents. Before the host is changed, an intent says what is about to be made or taken away; when the work is done, the
 * intent is closed in the same transaction as the row that speaks of it. So at any moment, what is on the host is either in the
 * database or in an open intent.
 *
 * Each kind of intent has one `settle` function that brings the host and the database to one of the two ends (wholly undone,
 * or wholly done for what takes something away). It is idempotent, trusts nothing but its payload, and serves both the failure inside the process and
 * the start after a crash. */

import { LidoError, messageOf } from "../../api/errors.ts";
import type { ChangeOptions, Database, Row } from "../state/database.ts";
import type { IntentKind } from "./kinds.ts";

export type Cause = "failed" | "crashed";
export type Settle<Payload> = (payload: Payload, cause: Cause) => Promise<void>;

export interface Intent extends AsyncDisposable {
  /** Closes the intent together with `change`. Nothing is undone after that. */
  commit<T>(change: () => T): T;
  /** Settles the intent unless it was committed. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Opens an intent of one kind. */
export type OpenIntent<Payload> = (payload: Payload) => Intent;

/** Is told of each intent: before its work begins, and once it is closed. Must not throw. */
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
  /** Intents of work that is going on. */
  readonly #active = new Set<number>();
  /** Intents that are settled, but whose rows could not be taken away: the disk was full. */
  readonly #settled = new Set<number>();
  /** Of the latest intent. SQLite gives an id again once its row is gone; and one in `#settled` must not be another's. */
  #lastId = 0;
  readonly #observe: (point: string) => void;
  #watcher: JournalWatcher | undefined;

  /** @param observe Told of each point at which a kill would find the host in another state; for tests. */
  constructor(database: Database, log: JournalLog, observe: (point: string) => void = () => {}) {
    this.#database = database;
    this.#log = log;
    this.#observe = observe;
  }

  /** Declares a kind of intent. @param settle See the header. @param options.untilReboot Its work leaves nothing that a power cut would not take.
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
    // Those that nothing but a row is left of go with this one, or this one does not come.
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
          // The intent stays open: the next start tries again. The caller sees the error that brought us here, not this one.
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

  /** Settles every intent that a killed daemon left open, the latest first. Called before anything is served, and again when a pool came back that
   * was not there.
   * @returns How many were open, and those that could not be settled. */
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

  /** Those that nobody is at work on: what a failure could not undo, and an earlier daemon left. */
  unsettled(): { id: number; kind: string; payload: string }[] {
    return this.#database.all("SELECT id, kind, payload FROM journal ORDER BY id DESC")
      .map((row) => ({ id: Number(row.id), kind: String(row.kind), payload: String(row.payload) }))
      .filter(({ id }) => !this.#active.has(id));
  }

  /** Those of one kind, the oldest first. @returns `isActive`: somebody is at work on it, now. */
  openOf<Payload>(kind: string): { id: number; payload: Payload; isActive: boolean }[] {
    return this.#database.all("SELECT id, payload FROM journal WHERE kind = ? ORDER BY id", kind).map((row) => ({
      id: Number(row.id),
      payload: JSON.parse(String(row.payload)) as Payload,
      isActive: this.#active.has(Number(row.id)),
    }));
  }

  /** Tries to settle those that would be in the way of an intent, which the caller is about to open under its lock. When that fails again, the
   * intent is refused. @param kind Of the intent. */
  async settleBefore(kind: string, payload: object): Promise<void> {
    for (const row of this.unsettled().filter((row) => isInTheWay(row, kind, payload))) {
      await this.settle(row.id).catch((error) =>
        this.#log.warn({ intent: row.kind, payload: row.payload, error: messageOf(error) }, "still not settled")
      );
    }
  }

  /** Tries to settle one of those. @throws What its `settle` throws. */
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

  /** What could not be taken away yet will be, some day: a new thing of that name would go with it.
   * @throws {LidoError} conflict. */
  #refuseUnsettled(kind: string, payload: object): void {
    const { name } = payload as Record<string, unknown>;
    if (!this.unsettled().some((row) => isInTheWay(row, kind, payload))) return;
    throw new LidoError(
      "conflict",
      `An earlier operation on "${name}" was cut off and could not be settled; "lido admin check --repair" tries again`,
    );
  }

  /** Closes the intents that nobody is at work on, of a pool, volume or instance that is gone: one of its name that is made later would get them.
   * In one transaction with the end of its row. @param kind Of the intent that deletes it. */
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

  /** @returns Whether it was there. */
  #close(id: number): boolean {
    return this.#database.run("DELETE FROM journal WHERE id = ?", id).changes > 0;
  }
}

/** Whether settling `row` later would meet what an intent of `kind` is about to make: it takes away or renames something of that name. */
function isInTheWay(row: { kind: string; payload: string }, kind: string, payload: object): boolean {
  // One that goes by the name would be lost with it, and found by the next of that name.
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

/** What an intent is about: a pool, an instance with its volume, or a volume with its snapshots; undefined for an image or a profile. */
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
