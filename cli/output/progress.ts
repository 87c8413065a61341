/** Progress in one line on the terminal, and Ctrl-C meanwhile. */
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
/** Work that ends earlier shows no progress and costs nothing. */
const patienceMs = 250;
const everyMs = 200;

export interface ProgressLine extends Disposable {
  show(text: string): void;
}

/** @returns Undefined when no progress is to be shown: stderr is not a terminal, or `--quiet` was given. */
export async function progressLine(io: Io): Promise<ProgressLine | undefined> {
  if (io.quiet || !await isTerminal(2)) return undefined;
  const { writeSync } = await import("node:fs");
  return {
    // One column less: a terminal may wrap as soon as the last column is written.
    show: (text) => void writeSync(2, `${clearLine}${fitProgress(neutralise(text), (columnsOf(2) ?? Infinity) - 1)}`),
    [Symbol.dispose]: () => void writeSync(2, clearLine),
  };
}

/** Shortens a line to the terminal's width: a wider one would leave a row behind at each update. The name is cut at the front, where it
 * tells least; the numbers are cut only when there is no room for the name. */
export function fitProgress(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  const [, name = "", numbers = text] = /^(.*)(: .*)$/s.exec(text) ?? [];
  const characters = [...name];
  const room = columns - displayWidth(numbers) - 1;
  while (characters.length > 0 && displayWidth(characters.join("")) > room) characters.shift();
  return characters.length > 0 ? `…${characters.join("")}${numbers}` : elide(numbers.replace(/^: /, ""), columns)[0]!;
}

/** Passes the bytes on and shows their progress. @param totalBytes Absent when it is not known. */
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

/** Is aborted by the first Ctrl-C until it is disposed of; a second one ends the process. */
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

/** A change whose operation may take long: its progress is shown, and Ctrl-C cancels it. @returns As `Client.change`. */
export async function changeWithProgress(
  io: Io,
  method: "POST" | "PUT",
  path: string,
  body?: unknown,
): Promise<Operation | undefined> {
  const { type, metadata } = await io.client.request(method, path, body);
  return type === "async" ? await waitWithProgress(io, metadata as Operation) : undefined;
}

/** Waits for the end of an operation and shows its progress. The first Ctrl-C cancels the operation if the daemon can cancel it; a second one, or
 * the first if it cannot, only ends this process. @throws {ApiError} If it failed or was cancelled. */
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

/** The progress of an operation. The wait does not depend on it: a daemon that reports no progress is waited for all the same. */
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

  /** As lxc does: shows any text whose name ends with `_progress`. */
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
