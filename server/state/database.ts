import { chmodSync, closeSync, existsSync, openSync } from "node:fs";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { LidoError } from "../../api/errors.ts";
import { initial } from "./migrations/001_initial.ts";
import { execSessions } from "./migrations/002_exec_sessions.ts";
import { instanceMounts } from "./migrations/003_instance_mounts.ts";
import { instanceExits } from "./migrations/004_instance_exits.ts";
import { Reserve } from "./reserve.ts";

/** Numbered schema changes, applied in order and each in a transaction of its own. Append; never edit one that was released. */
const migrations: readonly string[] = [initial, execSessions, instanceMounts, instanceExits];

export type Row = Record<string, SQLInputValue>;

export interface ChangeOptions {
  /** Whether the change deletes something, and so frees space: it may use the reserve when the disk is full. */
  readonly makesRoom?: boolean;
  /** For rows about things that end with the machine, such as mounts: the change is not flushed, so a power cut may lose it; a kill of the daemon
   * does not. A later change is never on disk without it. */
  readonly untilReboot?: boolean;
}

/** The daemon's state: one SQLite file, one writer (this process). WAL with synchronous=FULL: a transaction that returned is on disk.
 * @see https://www.sqlite.org/pragma.html#pragma_synchronous */
export class Database {
  readonly #path: string;
  readonly #sqlite: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #reserve: Reserve | undefined;
  /** Whether the reserve exists. It is filled with the first change, so that the rest of a start gets its space first. */
  #hasReserve: boolean;
  #depth = 0;
  #afterWrite = () => {};

  /** @param path File, or ":memory:" in tests. @throws {Error} If the file was written by a newer lido. */
  constructor(path: string) {
    this.#path = path;
    this.#reserve = path === ":memory:" ? undefined : new Reserve(path);
    try {
      this.#sqlite = open(path);
    } catch (error) {
      // On a full disk there is no space for SQLite's shared memory; the error is "full", "I/O error" or "unable to open".
      if (!this.#reserve?.release()) throw error;
      this.#sqlite = open(path);
    }
    const version = Number(this.get("PRAGMA user_version")?.user_version ?? 0);
    if (version > migrations.length) {
      throw new Error(
        `Cannot open "${path}": its schema is version ${version}, this lido knows up to ${migrations.length}`,
      );
    }
    for (let next = version; next < migrations.length; next++) {
      this.#transact(() => {
        this.#sqlite.exec(migrations[next]!);
        this.#sqlite.exec(`PRAGMA user_version = ${next + 1}`);
      });
    }
    this.#hasReserve = this.#reserve?.isHeld() ?? true;
  }

  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#prepare(sql).get(...values) as Row | undefined;
  }

  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#prepare(sql).all(...values) as Row[];
  }

  /** @returns Rows changed and the id of the last inserted row. @throws {LidoError} unavailable when the disk is full. */
  run(sql: string, ...values: SQLInputValue[]): { changes: number; id: number } {
    const change = () => {
      const { changes, lastInsertRowid } = this.#prepare(sql).run(...values);
      return { changes: Number(changes), id: Number(lastInsertRowid) };
    };
    if (this.#depth > 0) return change();
    const result = this.#withSpace(change, { makesRoom: sql.startsWith("DELETE ") });
    this.#afterWrite();
    return result;
  }

  /** Runs `change` in a transaction; a call inside another one joins it. All or nothing, also when the process is killed.
   * @throws {LidoError} unavailable when the disk is full; then nothing has changed. */
  transaction<T>(change: () => T, options: ChangeOptions = {}): T {
    if (this.#depth > 0) return change();
    const transact = () => this.#withSpace(() => this.#transact(change), options);
    const result = options.untilReboot ? this.#unflushed(transact) : transact();
    this.#afterWrite();
    return result;
  }

  /** @param listener Called after each change, once it is on disk; must not throw. */
  afterWrite(listener: () => void): void {
    this.#afterWrite = listener;
  }

  /** Runs statements without values or rows. */
  exec(sql: string): void {
    this.#sqlite.exec(sql);
  }

  close(): void {
    this.#statements.clear();
    this.#sqlite.close();
  }

  #transact<T>(change: () => T): T {
    this.#sqlite.exec("BEGIN IMMEDIATE");
    this.#depth++;
    try {
      const result = change();
      this.#sqlite.exec("COMMIT");
      return result;
    } catch (error) {
      // A full disk may have rolled it back already.
      if (this.#sqlite.isTransaction) this.#sqlite.exec("ROLLBACK");
      throw error;
    } finally {
      this.#depth--;
    }
  }

  /** In WAL mode, a commit with synchronous=NORMAL is written but not flushed; the next flushed commit flushes it, too. */
  #unflushed<T>(commit: () => T): T {
    this.#sqlite.exec("PRAGMA synchronous = NORMAL");
    try {
      return commit();
    } finally {
      this.#sqlite.exec("PRAGMA synchronous = FULL");
    }
  }

  #withSpace<T>(change: () => T, options: ChangeOptions): T {
    const hasReserve = this.#hasReserve ||= this.#reserve!.refill();
    if (!hasReserve && !options.makesRoom) throw this.#full();
    try {
      return change();
    } catch (error) {
      if (!isFull(error)) throw error;
      if (!options.makesRoom || !hasReserve) throw this.#full();
      this.#reserve!.release();
      this.#hasReserve = false;
    }
    try {
      return change();
    } catch (error) {
      throw isFull(error) ? this.#full() : error;
    }
  }

  #full(): LidoError {
    return new LidoError(
      "unavailable",
      `No space left on device for the daemon's database "${this.#path}": free some, such as by deleting volumes`,
    );
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, statement = this.#sqlite.prepare(sql));
    return statement;
  }
}

/** SQLite makes a database readable by all, and its log and shared memory with the same mode. Earlier versions of lido did not change that. */
function makePrivate(path: string): void {
  closeSync(openSync(path, "a", 0o600));
  for (const file of [path, `${path}-wal`, `${path}-shm`]) if (existsSync(file)) chmodSync(file, 0o600);
}

function open(path: string): DatabaseSync {
  if (path !== ":memory:") makePrivate(path);
  const sqlite = new DatabaseSync(path);
  try {
    sqlite.exec(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000",
    );
    return sqlite;
  } catch (error) {
    sqlite.close();
    throw error;
  }
}

/** SQLITE_FULL. Not every runtime gives the error's number, but each gives its text. @see https://www.sqlite.org/rescode.html#full */
function isFull(error: unknown): boolean {
  return error instanceof Error && error.message.includes("database or disk is full");
}
