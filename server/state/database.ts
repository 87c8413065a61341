import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { initial } from "./migrations/001_initial.ts";
import { execSessions } from "./migrations/002_exec_sessions.ts";

/** Numbered schema changes, applied in order and each in a transaction of its own. Append; never edit one that was released. */
const migrations: readonly string[] = [initial, execSessions];

export type Row = Record<string, SQLInputValue>;

/** The daemon's state: one SQLite file, one writer (this process). WAL with synchronous=FULL: a transaction that returned is on disk.
 * @see https://www.sqlite.org/pragma.html#pragma_synchronous */
export class Database {
  readonly #sqlite: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #depth = 0;

  /** @param path File, or ":memory:" in tests. @throws {Error} If the file was written by a newer lido. */
  constructor(path: string) {
    this.#sqlite = new DatabaseSync(path);
    this.#sqlite.exec(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000",
    );
    const version = Number(this.get("PRAGMA user_version")?.user_version ?? 0);
    if (version > migrations.length) {
      throw new Error(
        `Cannot open "${path}": its schema is version ${version}, this lido knows up to ${migrations.length}`,
      );
    }
    for (let next = version; next < migrations.length; next++) {
      this.transaction(() => {
        this.#sqlite.exec(migrations[next]!);
        this.#sqlite.exec(`PRAGMA user_version = ${next + 1}`);
      });
    }
  }

  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#prepare(sql).get(...values) as Row | undefined;
  }

  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#prepare(sql).all(...values) as Row[];
  }

  /** @returns Rows changed and the id of the last inserted row. */
  run(sql: string, ...values: SQLInputValue[]): { changes: number; id: number } {
    const { changes, lastInsertRowid } = this.#prepare(sql).run(...values);
    return { changes: Number(changes), id: Number(lastInsertRowid) };
  }

  /** Runs `change` in a transaction; a call inside another one joins it. All or nothing, also when the process is killed. */
  transaction<T>(change: () => T): T {
    if (this.#depth > 0) return change();
    this.#sqlite.exec("BEGIN IMMEDIATE");
    this.#depth++;
    try {
      const result = change();
      this.#sqlite.exec("COMMIT");
      return result;
    } catch (error) {
      this.#sqlite.exec("ROLLBACK");
      throw error;
    } finally {
      this.#depth--;
    }
  }

  close(): void {
    this.#statements.clear();
    this.#sqlite.close();
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, statement = this.#sqlite.prepare(sql));
    return statement;
  }
}
