import { randomUUID } from "node:crypto";
import type { WebSocket } from "ws";
import { LidoError, messageOf, notFound } from "../../api/errors.ts";
import { type Operation as OperationView, type StatusCode, statusCodes } from "../../api/types.ts";
import type { Events } from "../events/events.ts";
import { currentClient } from "../log/client.ts";
import { describeFailure, isUnexpected, type Log } from "../log/failure.ts";

/** How long a finished operation can still be asked for, as LXD's. */
const keptMs = 5_000;

export interface OperationOptions {
  readonly class?: "task" | "websocket" | "token";
  readonly description: string;
  /** Plural noun → URLs, e.g. `{ instances: ["/1.0/instances/c1"] }`. */
  readonly resources?: Record<string, string[]>;
  readonly metadata?: Record<string, unknown>;
  /** The work. Its rejection is the operation's failure. Whether the work ended because of a cancel is read from `operation.signal`. */
  readonly run: (operation: Operation) => Promise<void>;
  /** Present when the operation may be cancelled; called once, after `operation.signal` was aborted. */
  readonly cancel?: () => void;
  /** For class websocket: takes a client's connection. @throws {LidoError} forbidden on a wrong secret, before the upgrade. */
  readonly connect?: (secret: string) => (socket: WebSocket) => void;
}

/** A task in the background that a client can watch, wait for and perhaps cancel. */
export class Operation {
  readonly id = randomUUID();
  readonly #options: OperationOptions;
  readonly #events: Events;
  readonly #abort = new AbortController();
  #isSealed = false;
  readonly #createdAt = new Date().toISOString();
  #updatedAt = this.#createdAt;
  #status: StatusCode = 103;
  #error = "";
  #failure: unknown;
  #metadata: Record<string, unknown> | null;
  readonly finished: Promise<void>;

  readonly #scope: OperationServices["scope"];
  readonly #explain: OperationServices["explain"];
  readonly #log: Pick<Log, "info" | "warn" | "error"> | undefined;
  /** Read at once: the connection may be closed when the operation ends. */
  readonly #client = currentClient();
  readonly #started = performance.now();

  constructor(options: OperationOptions, services: OperationServices, onFinished: () => void) {
    this.#options = options;
    this.#scope = services.scope;
    this.#explain = services.explain;
    this.#events = services.events;
    this.#log = services.log;
    this.#metadata = options.metadata ?? null;
    this.#publish();
    this.finished = this.#work().finally(onFinished);
  }

  /** Aborted when the client cancels. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get isFinal(): boolean {
    return this.#status >= 200;
  }

  /** Merges into the metadata that clients see, and publishes it. */
  update(metadata: Record<string, unknown>): void {
    this.#metadata = { ...this.#metadata, ...metadata };
    this.#publish();
  }

  /** Adds notes for the client, which matter although the operation succeeds: `notes` in its metadata, a list of sentences (extension
   * operation_notes). */
  note(...texts: readonly (string | undefined)[]): void {
    const notes = texts.filter((text) => text !== undefined);
    if (notes.length === 0) return;
    const before = this.#metadata?.notes;
    this.update({ notes: [...(Array.isArray(before) ? before : []), ...notes] });
  }

  /** Waits for the operation's end. @throws The error that the work failed with. */
  async done(): Promise<void> {
    await this.finished;
    if (this.#status !== 200) throw this.#failure ?? this.signal.reason;
  }

  /** For work that can no longer be rolled back: from now on a cancel is refused, and one made before has no effect. */
  seal(): void {
    this.#isSealed = true;
    this.#status = 103;
    this.#publish();
  }

  /** For work that can still be rolled back. @throws The reason of a cancel made before. */
  sealUnlessCancelled(): void {
    this.signal.throwIfAborted();
    this.seal();
  }

  /** @throws {LidoError} bad_request when it cannot be cancelled or has ended. */
  cancel(): void {
    if (!this.#isCancellable) {
      throw new LidoError("bad_request", "This operation can't be cancelled");
    }
    this.#status = 104;
    this.#abort.abort(new LidoError("bad_request", "Operation cancelled"));
    this.#options.cancel!();
    this.#publish();
  }

  get #isCancellable(): boolean {
    return this.#options.cancel !== undefined && this.#status === 103 && !this.#isSealed;
  }

  connect(secret: string): (socket: WebSocket) => void {
    if (!this.#options.connect) throw new LidoError("bad_request", "Only websocket operations can be connected");
    return this.#options.connect(secret);
  }

  view(): OperationView {
    const code = this.#status;
    return {
      id: this.id,
      class: this.#options.class ?? "task",
      description: this.#options.description,
      created_at: this.#createdAt,
      updated_at: this.#updatedAt,
      status: statusCodes[code],
      status_code: code,
      resources: this.#options.resources ?? {},
      metadata: this.#metadata,
      may_cancel: this.#isCancellable,
      err: this.#error,
      location: "none",
    };
  }

  async #work(): Promise<void> {
    // The client must get the operation's first answer before its end: the work starts on the next turn.
    await Promise.resolve();
    try {
      const scope = this.#scope();
      await scope.run(() => this.#options.run(this)).finally(async () => this.note(...await scope.settled()));
      this.#status = this.#wasCancelled ? 401 : 200;
    } catch (error) {
      this.#status = this.#wasCancelled ? 401 : 400;
      this.#failure = this.#explain(error);
      this.#error = messageOf(this.#failure);
    }
    this.#publish();
    this.#report();
  }

  /** One line for each operation: who, what, how long, and how it ended. Its metadata is not for the log: it has environments and secrets. */
  #report(): void {
    const { description, resources = {} } = this.#options;
    // Each thing is named once: an instance is also a container, LXD's older name.
    const { containers: _, ...named } = resources;
    const code = this.#metadata?.return;
    const fields = {
      operation: this.id,
      ...this.#client,
      resources: Object.values(named.instances ? named : resources).flat(),
      ms: Math.round(performance.now() - this.#started),
      result: statusCodes[this.#status].toLowerCase(),
      ...(typeof code === "number" ? { return: code } : {}),
    };
    if (this.#status !== 400) return this.#log?.info(fields, description);
    const told = { ...fields, ...describeFailure(this.#failure) };
    if (isUnexpected(this.#failure)) this.#log?.error(told, description);
    else this.#log?.warn(told, description);
  }

  get #wasCancelled(): boolean {
    return this.signal.aborted && !this.#isSealed;
  }

  #publish(): void {
    this.#updatedAt = new Date().toISOString();
    this.#events.publish("operation", this.view());
  }
}

/** Collects the record writes that work in it causes. */
export interface ChangeScope {
  run<T>(work: () => Promise<T>): Promise<T>;
  /** Waits for these writes; must not reject. @returns Notes for the client: what could not be written. */
  settled(): Promise<readonly string[]>;
}

const nothingToWrite: ChangeScope = { run: (work) => work(), settled: () => Promise.resolve([]) };

export interface OperationServices {
  readonly events: Events;
  /** Makes a scope for each operation, which does not end before its record writes have. */
  readonly scope: () => ChangeScope;
  /** @returns The error to show to the client, which may be the same. */
  readonly explain: (error: unknown) => unknown;
  readonly log?: Pick<Log, "info" | "warn" | "error"> | undefined;
}

/** Every operation that runs, or ended less than five seconds ago. */
export class Operations {
  readonly #services: OperationServices;
  readonly #byId = new Map<string, Operation>();
  readonly #expiries = new Set<NodeJS.Timeout>();

  /** @param more Without it, there are no record writes to wait for, and nothing is logged. */
  constructor(events: Events, more: Partial<Omit<OperationServices, "events">> = {}) {
    this.#services = { scope: () => nothingToWrite, explain: (error) => error, ...more, events };
  }

  start(options: OperationOptions): Operation {
    const operation = new Operation(options, this.#services, () => {
      const expiry = setTimeout(() => {
        this.#byId.delete(operation.id);
        this.#expiries.delete(expiry);
      }, keptMs);
      expiry.unref();
      this.#expiries.add(expiry);
    });
    this.#byId.set(operation.id, operation);
    return operation;
  }

  /** @throws {LidoError} not_found. */
  get(id: string): Operation {
    const operation = this.#byId.get(id);
    if (!operation) throw notFound("Operation", id);
    return operation;
  }

  list(): Operation[] {
    return [...this.#byId.values()];
  }

  /** Cancels every operation that can be cancelled, and waits for all; used at shutdown. */
  async close(): Promise<void> {
    for (const operation of this.#byId.values()) {
      if (operation.view().may_cancel) operation.cancel();
    }
    await Promise.allSettled([...this.#byId.values()].map((operation) => operation.finished));
    for (const expiry of this.#expiries) clearTimeout(expiry);
  }
}
