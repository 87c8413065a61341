/** The journal of intents. Before the host is changed, an intent says what is about to be made or taken away; when the work is done, the
 * intent is closed in the same transaction as the row that speaks of it. So at any moment, what is on the host is either in the
 * database or in an open intent.
 *
 * Each kind of intent has one `settle` function that brings the host and the database to one of the two ends (wholly undone,
 * or wholly done for what takes something away). It is idempotent, trusts nothing but its payload, and serves both the failure inside the process and
 * the start after a crash. */

import type { Database } from "../state/database.ts";

export type Cause = "failed" | "crashed";
export type Settle<Payload> = (payload: Payload, cause: Cause) => Promise<void>;

export interface Intent extends AsyncDisposable {
  /** Closes the intent together with `change`. Nothing is undone after that. */
  commit<T>(change: () => T): T;
  /** Settles the intent unless it was committed. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface JournalLog {
  warn(context: object, message: string): void;
}

export class Journal {
  readonly #database: Database;
  readonly #log: JournalLog;
  readonly #kinds = new Map<string, Settle<never>>();

  constructor(database: Database, log: JournalLog) {
    this.#database = database;
    this.#log = log;
  }

  /** Declares a kind of intent. @param settle See the header. @returns A function that opens an intent of this kind. */
  kind<Payload extends object>(name: string, settle: Settle<Payload>): (payload: Payload) => Intent {
    if (this.#kinds.has(name)) throw new Error(`journal: "${name}" is declared twice`);
    this.#kinds.set(name, settle as Settle<never>);
    return (payload) => this.#open(name, payload, settle);
  }

  #open<Payload extends object>(name: string, payload: Payload, settle: Settle<Payload>): Intent {
    const { id } = this.#database.run(
      "INSERT INTO journal (kind, payload, created_at) VALUES (?, ?, ?)",
      name,
      JSON.stringify(payload),
      new Date().toISOString(),
    );
    let closed = false;
    return {
      commit: (change) =>
        this.#database.transaction(() => {
          const result = change();
          this.#close(id);
          closed = true;
          return result;
        }),
      [Symbol.asyncDispose]: async () => {
        if (closed) return;
        closed = true;
        try {
          await settle(payload, "failed");
          this.#close(id);
        } catch (error) {
          // The intent stays open: the next start tries again. The caller sees the error that brought us here, not this one.
          this.#log.warn(
            { intent: name, payload, error: String(error) },
            "could not settle an intent; left for the next start",
          );
        }
      },
    };
  }

  /** Settles every intent that a killed daemon left open, the latest first. Called before anything is served.
   * @returns How many were open, and those that could not be settled. */
  async recover(): Promise<{ open: number; unsettled: { kind: string; error: string }[] }> {
    const rows = this.#database.all("SELECT id, kind, payload FROM journal ORDER BY id DESC");
    const unsettled: { kind: string; error: string }[] = [];
    for (const row of rows) {
      const kind = String(row.kind);
      const settle = this.#kinds.get(kind) as Settle<object> | undefined;
      try {
        if (!settle) throw new Error("this lido does not know its kind");
        await settle(JSON.parse(String(row.payload)), "crashed");
        this.#close(Number(row.id));
      } catch (error) {
        unsettled.push({ kind, error: String(error) });
        this.#log.warn({ intent: kind, payload: row.payload, error: String(error) }, "could not settle an intent");
      }
    }
    return { open: rows.length, unsettled };
  }

  #close(id: number): void {
    this.#database.run("DELETE FROM journal WHERE id = ?", id);
  }
}
