import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import type { InstanceConsolePost } from "../../api/types.ts";
import type { Poller } from "../../drivers/host/poll/poll.ts";
import { setWindowSize } from "../../drivers/host/process/process.ts";
import type { ConsoleTerminal, Runtime } from "../../drivers/runtime/runtime.ts";
import type { LifecycleAction, LifecycleContext } from "../events/actions.ts";
import type { Events } from "../events/events.ts";
import { clearLog, readLog } from "../instances/logs.ts";
import type { Operation, Operations } from "../operations/operations.ts";
import { ClientSockets } from "./client_sockets.ts";
import { isWindowSize, obey } from "./control.ts";
import { Input } from "./input.ts";
import { OutputPump } from "./output.ts";

export interface ConsoleServices {
  readonly runtime: Runtime;
  readonly poller: Poller;
  readonly operations: Operations;
  readonly events: Events;
  /** @throws {LidoError} not_found; bad_request when it does not run, or is frozen. */
  readonly target: (name: string) => unknown;
  /** @throws {LidoError} not_found. */
  readonly logDirectory: (name: string) => string;
}

/** Containers' consoles for clients: attaches to them, and reads and clears their logs. */
export class ConsoleService {
  readonly #services: ConsoleServices;
  /** Consoles that have a client: one at a time, as with LXD. */
  readonly #attached = new Set<string>();

  constructor(services: ConsoleServices) {
    this.#services = services;
  }

  /** @throws {LidoError} not_found; bad_request for another type or a container that does not run; conflict when another client is attached. */
  attach(name: string, post: InstanceConsolePost): Operation {
    const { target, operations } = this.#services;
    if (post.type === "vga") throw new LidoError("bad_request", "VGA console is only supported by virtual machines");
    if (post.type !== "" && post.type !== "console") {
      throw new LidoError("bad_request", `Unknown console type "${post.type}"`);
    }
    target(name);
    if (this.#attached.has(name)) {
      throw new LidoError("conflict", `The console of "${name}" is in use by another client`);
    }
    this.#attached.add(name);
    const sockets = new ClientSockets(true);
    const over = Promise.withResolvers<void>();
    const part = encodeURIComponent(name);
    return operations.start({
      description: "Showing console",
      class: "websocket",
      resources: { containers: [`/1.0/containers/${part}`], instances: [`/1.0/instances/${part}`] },
      metadata: { fds: sockets.fds },
      connect: (secret) => sockets.connect(secret),
      cancel: () => {
        sockets.cancel(new LidoError("bad_request", "The operation was cancelled"));
        over.resolve();
      },
      run: async () => {
        try {
          await sockets.connected();
          await this.#serve(name, post, sockets, over);
        } finally {
          this.#attached.delete(name);
          await sockets.end();
        }
      },
    });
  }

  /** The last output of the console, of the running container or of its last run.
   * @throws {LidoError} not_found. */
  async retrieve(name: string): Promise<Readable> {
    const content = await this.read(name, "console.log");
    this.#publish("instance-console-retrieved", name);
    return content;
  }

  /** Reads a log file; for the console's two names, as `retrieve`. @param file "console.log" or "lxc.log" for the console. */
  async read(name: string, file: string): Promise<Readable> {
    const directory = this.#services.logDirectory(name);
    const isConsole = file === "console.log" || file === "lxc.log";
    const content = isConsole
      ? await this.#ofRunning(name, () => this.#services.runtime.consoleContent(name))
      : undefined;
    return content === undefined ? await readLog(directory, file) : Readable.from([content], { objectMode: false });
  }

  /** @throws {LidoError} not_found. */
  async clear(name: string): Promise<void> {
    const directory = this.#services.logDirectory(name);
    const isCleared = await this.#ofRunning(name, async () => {
      await this.#services.runtime.clearConsole(name);
      return true;
    });
    if (!isCleared) await clearLog(directory, "console.log");
    this.#publish("instance-console-reset", name);
  }

  /** @returns undefined for an instance that does not run, or has ended meanwhile: its last output is in the file then. */
  async #ofRunning<T>(name: string, work: () => Promise<T>): Promise<T | undefined> {
    if (!this.#services.runtime.get(name)) return undefined;
    try {
      return await work();
    } catch (error) {
      if (error instanceof LidoError && error.code === "bad_request") return undefined;
      throw error;
    }
  }

  async #serve(
    name: string,
    post: InstanceConsolePost,
    sockets: ClientSockets,
    over: PromiseWithResolvers<void>,
  ): Promise<void> {
    const terminal = await this.#services.runtime.attachConsole(name);
    this.#publish("instance-console", name, { type: "console" });
    using parts = new Attached(this.#services.poller, terminal, sockets);
    if (isWindowSize(post.width) && isWindowSize(post.height)) parts.resize(post);
    sockets.serve({
      input: (chunk) => parts.input.write(chunk),
      endInput: () => over.resolve(), // as LXD: a client whose terminal was closed
      control: (text) => obey(parts, text),
      gone: () => over.resolve(),
    });
    const isEnded = await Promise.race([parts.output.finished.then(() => true), over.promise.then(() => false)]);
    // As LXD: the client's prompt begins on a line of its own.
    if (isEnded) await sockets.sink("0").write(new TextEncoder().encode("\n\r"));
    const lost = terminal.lost();
    if (isEnded && lost) throw lost;
  }

  #publish<A extends LifecycleAction>(action: A, name: string, context?: LifecycleContext<A>): void {
    this.#services.events.lifecycle(action, `/1.0/instances/${encodeURIComponent(name)}`, context);
  }
}

/** A console's descriptors while a client is attached. */
export class Attached implements Disposable {
  readonly input: Input;
  readonly output: OutputPump;
  readonly #terminal: ConsoleTerminal;

  constructor(poller: Poller, terminal: ConsoleTerminal, sockets: ClientSockets) {
    this.#terminal = terminal;
    this.input = new Input(poller, terminal.master, true);
    this.output = new OutputPump(poller, terminal.output, sockets.sink("0"));
  }

  /** Does nothing after the input was closed, by the client or by the terminal's end: its descriptor may be reused by then.
   * @param size In characters, 1 to 65535. */
  resize(size: { width: number; height: number }): void {
    if (!this.input.isClosed) setWindowSize(this.#terminal.master, size);
  }

  [Symbol.dispose](): void {
    this.output.close();
    this.input.close();
    this.#terminal.release();
  }
}
