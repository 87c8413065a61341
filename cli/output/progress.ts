/** How far something is, in one line on the terminal, and what Ctrl-C does meanwhile. */
import { showProgress } from "../../api/progress.ts";
import type { Operation } from "../../api/types.ts";
import { url } from "../client/client.ts";
import type { MessageSocket } from "../client/websocket.ts";
import { columnsOf } from "../terminal/columns.ts";
import { isTerminal } from "../terminal/is_terminal.ts";
import type { Io } from "../verb.ts";
import { showNotes } from "./notes.ts";
import { displayWidth, elide, neutralise } from "./text.ts";

const clearLine = "\r\x1b[K";
/** What is done before shows nothing and costs nothing. */
const patienceMs = 250;
const everyMs = 200;

export interface ProgressLine extends Disposable {
  show(text: string): void;
}

/** @returns Undefined where none is to be shown: stderr is no terminal, or nobody wants it. */
export async function progressLine(io: Io): Promise<ProgressLine | undefined> {
  if (io.quiet || !await isTerminal(2)) return undefined;
  const { writeSync } = await import("node:fs");
  return {
    // One column less: a terminal may go to the next row as the last is written.
    show: (text) => void writeSync(2, `${clearLine}${fitProgress(neutralise(text), (columnsOf(2) ?? Infinity) - 1)}`),
    [Symbol.dispose]: () => void writeSync(2, clearLine),
  };
}

/** A line that is wider than the terminal would leave a row behind at each update. Its name is cut at the front, where it
 * tells least; the numbers only when there is room for nothing else. */
export function fitProgress(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  const [, name = "", numbers = text] = /^(.*)(: .*)$/s.exec(text) ?? [];
  const characters = [...name];
  const room = columns - displayWidth(numbers) - 1;
  while (characters.length > 0 && displayWidth(characters.join("")) > room) characters.shift();
  return characters.length > 0 ? `…${characters.join("")}${numbers}` : elide(numbers.replace(/^: /, ""), columns)[0]!;
}

/** The bytes, shown as they pass. @param totalBytes How many there will be, when that is known. */
export async function* metered(
  content: AsyncIterable<Uint8Array>,
  line: ProgressLine | undefined,
  name: string,
  totalBytes?: number,
): AsyncGenerator<Uint8Array> {
  const started = Date.now();
  let bytes = 0, shown = started;
  for await (const chunk of content) {
    yield chunk;
    bytes += chunk.length;
    const now = Date.now();
    if (!line || now - shown < everyMs) continue;
    shown = now;
    line.show(showProgress(name, { done: bytes, total: totalBytes, elapsedMs: now - started }));
  }
}

/** Aborted by the first Ctrl-C until it is disposed of; another one ends us. */
export class Interruption implements Disposable {
  readonly #abort = new AbortController();
  readonly #onSignal = () => this.#abort.abort(new Error("Cancelled"));

  constructor() {
    process.once("SIGINT", this.#onSignal);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    process.off("SIGINT", this.#onSignal);
  }
}

/** A change whose operation may take its time: shown while it runs, and cancelled by Ctrl-C. @returns As `Client.change`. */
export async function changeWithProgress(
  io: Io,
  method: "POST" | "PUT",
  path: string,
  body?: unknown,
): Promise<Operation | undefined> {
  const { type, metadata } = await io.client.request(method, path, body);
  return type === "async" ? await waitWithProgress(io, metadata as Operation) : undefined;
}

/** Waits for the end of an operation, shown while it runs. Ctrl-C cancels it, where the daemon can; where it cannot, or the second time, it only ends
 * us. @throws {ApiError} If it failed or was cancelled. */
export async function waitWithProgress(io: Io, operation: Operation): Promise<Operation> {
  using interruption = operation.may_cancel ? new Interruption() : undefined;
  interruption?.signal.addEventListener("abort", () => {
    io.client.request("DELETE", url`/1.0/operations/${operation.id}`).catch((error: Error) =>
      io.err(`${error.message}: it goes on; interrupt again to leave it alone\n`)
    );
  });
  using _view = new OperationView(io, operation.id);
  const finished = await io.client.waitFor(operation);
  showNotes(io, finished.metadata);
  return finished;
}

/** What an operation says of itself. Nothing depends on it: a daemon that does not tell is waited for all the same. */
export class OperationView implements Disposable {
  readonly #io: Io;
  readonly #id: string;
  readonly #timer: NodeJS.Timeout;
  #line: ProgressLine | undefined;
  #socket: MessageSocket | undefined;
  #isOver = false;

  constructor(io: Io, id: string) {
    this.#io = io;
    this.#id = id;
    this.#timer = setTimeout(() => this.#open().catch(() => {}), patienceMs);
  }

  async #open(): Promise<void> {
    const { openWebSocket } = await import("../client/websocket.ts");
    this.#line = await progressLine(this.#io);
    if (!this.#line || this.#isOver) return;
    const message = (data: string | Uint8Array) => this.#show(JSON.parse(data.toString()).metadata);
    await openWebSocket(this.#io.client.endpoint, "/1.0/events?type=operation", { message }, (opening) => {
      this.#socket = opening;
    });
  }

  /** As lxc: every text whose name ends so, whatever it is that goes on. */
  #show({ id, metadata }: Operation): void {
    if (id !== this.#id || this.#isOver) return;
    const text = Object.entries(metadata ?? {}).find(([key]) => key.endsWith("_progress"))?.[1];
    if (typeof text === "string") this.#line?.show(text);
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#socket?.terminate();
    this.#line?.[Symbol.dispose]();
  }
}
