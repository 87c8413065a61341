import { randomBytes } from "node:crypto";
import { LidoError, notFound } from "../../api/errors.ts";
import type { ExecSession } from "../../api/types.ts";
import type { Database } from "../state/database.ts";
import { DetachableSession } from "./detachable.ts";

/** How long an ended session is kept for a client that asks for its output and exit code. */
const keptMs = 3_600_000;
/** Each holds up to 1 MiB. */
const sessionsMax = 256;

/** A session that was running when an earlier daemon ended. */
type EndedSession = Pick<ExecSession, "id" | "instance" | "command" | "interactive" | "created_at">;

/** Every detachable session: the running ones, those that ended and were not read yet, and those that ended with an earlier daemon. */
export class ExecSessions {
  readonly #database: Database;
  readonly #sessions = new Map<string, DetachableSession>();
  readonly #lost = new Map<string, EndedSession>();
  readonly #expiries = new Map<string, NodeJS.Timeout>();
  #isClosed = false;

  constructor(database: Database) {
    this.#database = database;
    for (const row of database.all("SELECT * FROM exec_sessions")) {
      const id = String(row.id);
      this.#lost.set(id, {
        id,
        instance: String(row.instance),
        command: JSON.parse(String(row.command)),
        interactive: row.interactive === 1,
        created_at: String(row.created_at),
      });
      this.#forgetLater(id);
    }
  }

  /** Adds a session and starts its command by `launch`.
   * @throws {LidoError} bad_request when there are too many sessions; and what `launch` throws, after which the session is removed. */
  async start(
    options: { instance: string; argv: readonly string[]; interactive: boolean },
    launch: Parameters<DetachableSession["start"]>[0],
  ): Promise<DetachableSession> {
    this.#makeRoom();
    const session = new DetachableSession({ id: randomBytes(6).toString("hex"), ...options });
    this.#database.run(
      "INSERT INTO exec_sessions (id, instance, command, interactive, created_at) VALUES (?, ?, ?, ?, ?)",
      session.id,
      session.instance,
      JSON.stringify(session.argv),
      session.isInteractive ? 1 : 0,
      session.createdAt.toISOString(),
    );
    this.#sessions.set(session.id, session);
    try {
      await session.start(launch, () => this.#ended(session));
    } catch (error) {
      this.forget(session.id);
      throw error;
    }
    return session;
  }

  /** @throws {LidoError} not_found; bad_request for one that ended with an earlier daemon. */
  get(id: string): DetachableSession {
    const session = this.#sessions.get(id);
    if (session) return session;
    if (this.#lost.has(id)) throw stopped(id);
    throw notFound("Session", id);
  }

  list(instance?: string): ExecSession[] {
    const lost = [...this.#lost.values()].map((one): ExecSession => ({
      ...one,
      status: "Lost",
      attached: false,
      return: null,
      ended_at: null,
    }));
    return [...lost, ...[...this.#sessions.values()].map(view)]
      .filter((one) => instance === undefined || one.instance === instance)
      .sort((left, right) => left.created_at < right.created_at ? -1 : 1);
  }

  /** @throws {LidoError} not_found. */
  show(id: string): ExecSession {
    return this.list().find((one) => one.id === id) ?? view(this.get(id));
  }

  /** Kills the command if it runs, and deletes the session. @throws {LidoError} not_found. */
  async delete(id: string): Promise<void> {
    if (!this.#lost.has(id)) {
      const session = this.get(id);
      session.kill();
      await session.ended();
    }
    this.forget(id);
  }

  /** Deletes a session without ending its command. */
  forget(id: string): void {
    clearTimeout(this.#expiries.get(id));
    this.#expiries.delete(id);
    this.#sessions.delete(id);
    this.#lost.delete(id);
    this.#database.run("DELETE FROM exec_sessions WHERE id = ?", id);
  }

  /** Ends all sessions; the next daemon lists the running ones as lost. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const expiry of this.#expiries.values()) clearTimeout(expiry);
    const running = [...this.#sessions.values()].filter((session) => session.endedAt === undefined);
    for (const session of running) session.stop(stopped(session.id));
    await Promise.all(running.map((session) => session.ended()));
  }

  #ended(session: DetachableSession): void {
    if (this.#isClosed || !this.#sessions.has(session.id)) return;
    this.#database.run("DELETE FROM exec_sessions WHERE id = ?", session.id);
    this.#forgetLater(session.id);
  }

  #forgetLater(id: string): void {
    const expiry = setTimeout(() => this.forget(id), keptMs);
    expiry.unref();
    this.#expiries.set(id, expiry);
  }

  /** Deletes the oldest ended session that has no client, if there are too many. */
  #makeRoom(): void {
    if (this.#sessions.size < sessionsMax) return;
    const idle = [...this.#sessions.values()].find((session) => session.endedAt !== undefined && !session.isAttached);
    if (!idle) {
      throw new LidoError("bad_request", `Too many detachable sessions: ${sessionsMax} at a time are allowed`);
    }
    this.forget(idle.id);
  }
}

function stopped(id: string): LidoError {
  return new LidoError("bad_request", `Session "${id}" ended when the daemon stopped: its command was killed`);
}

function view(session: DetachableSession): ExecSession {
  return {
    id: session.id,
    instance: session.instance,
    command: [...session.argv],
    interactive: session.isInteractive,
    status: session.endedAt === undefined ? "Running" : "Ended",
    attached: session.isAttached,
    return: session.code ?? null,
    created_at: session.createdAt.toISOString(),
    ended_at: session.endedAt?.toISOString() ?? null,
  };
}
