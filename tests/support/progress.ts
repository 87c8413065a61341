import { once } from "node:events";
import { WebSocket } from "ws";
import type { Operation } from "../../api/types.ts";
import type { RawClient } from "./raw.ts";

/** A daemon's operations, as its events report them. */
export class OperationEvents implements Disposable {
  readonly #socket: WebSocket;
  readonly #seen: Operation[] = [];
  #look = () => {};

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on("message", (data) => {
      this.#seen.push(JSON.parse(String(data)).metadata);
      this.#look();
    });
  }

  static async open(directory: string): Promise<OperationEvents> {
    const path = "/1.0/events?type=operation";
    const events = new OperationEvents(new WebSocket(`ws+unix:${directory}/unix.socket:${path}`));
    await once(events.#socket, "open");
    return events;
  }

  /** The operation's first event with a copy's progress. @throws {Error} If the operation ends before. */
  progress(id: string): Promise<Operation> {
    return this.first(id, ({ metadata }) => Boolean(metadata?.fs_progress));
  }

  /** The operation's first event for which `is` returns true. @throws {Error} If the operation ends before. */
  first(id: string, is: (event: Operation) => boolean): Promise<Operation> {
    return new Promise((resolve, reject) => {
      this.#look = () => {
        const mine = this.#seen.filter((one) => one.id === id);
        const found = mine.find((one) => one.status_code < 200 && is(one));
        if (found) resolve(found);
        else if (mine.some(({ status_code }) => status_code >= 200)) reject(new Error(JSON.stringify(mine.at(-1))));
      };
      this.#look();
    });
  }

  [Symbol.dispose](): void {
    this.#socket.terminate();
  }
}

/** Sends a request, and cancels its operation at the first report of progress. @returns The ended operation. */
// deno-lint-ignore no-explicit-any
export async function cancelled(raw: RawClient, events: OperationEvents, ...asked: Asked): Promise<any> {
  const { status, body } = await raw.ask(...asked);
  if (status !== 202) throw new Error(JSON.stringify(body));
  const { id } = body.metadata;
  const { may_cancel } = await events.progress(id);
  if (!may_cancel) throw new Error("it cannot be cancelled");
  await raw.ask("DELETE", `/1.0/operations/${id}`);
  return await raw.wait(id);
}

type Asked = [method: string, path: string, body?: unknown];
