/** The bare API, without a client of ours: can send what hostile or broken clients may send. */
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { WebSocket } from "ws";

/** The slowest are several copies one after the other on a busy machine. */
const endMaxMs = 300_000;

export interface Answer {
  readonly status: number;
  // deno-lint-ignore no-explicit-any
  readonly body: any;
}

export class RawClient {
  readonly #socket: string;

  constructor(directory: string) {
    this.#socket = `${directory}/unix.socket`;
  }

  /** @param body Text and bytes are sent as they are, any other value as JSON. */
  ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const read = async (incoming: IncomingMessage): Promise<Answer> => {
        const chunks: Uint8Array[] = [];
        for await (const chunk of incoming) chunks.push(chunk as Uint8Array);
        const text = Buffer.concat(chunks).toString();
        return { status: incoming.statusCode ?? 0, body: text === "" ? undefined : JSON.parse(text) };
      };
      // A killed daemon may be in the middle of its response.
      const outgoing = request(
        { socketPath: this.#socket, method, path, headers, agent: false },
        (incoming) => void read(incoming).then(resolve, reject),
      );
      outgoing.on("error", reject);
      const isPlain = body === undefined || typeof body === "string" || body instanceof Uint8Array;
      outgoing.end(isPlain ? body : JSON.stringify(body));
    });
  }

  /** Sends a request and closes the connection without reading the response. @param afterMs Time between sending and closing. */
  async giveUp(path: string, afterMs: number): Promise<void> {
    const outgoing = request({ socketPath: this.#socket, path, agent: false });
    outgoing.on("error", () => {});
    // Never read the response, so that it fills the socket's buffer and stalls.
    outgoing.on("response", (incoming) => incoming.on("error", () => {}));
    const closed = new Promise((resolve) => outgoing.once("close", resolve));
    outgoing.end();
    setTimeout(() => outgoing.destroy(), afterMs);
    await closed;
  }

  /** Starts a command; the caller connects its websockets. */
  async exec(instance: string, command: readonly string[], rest: object = {}): Promise<RawExec> {
    const post = { command, "wait-for-websocket": true, ...rest };
    const { status, body } = await this.ask("POST", `/1.0/instances/${instance}/exec`, post);
    if (status !== 202) throw new Error(`${status}: ${body.error}`);
    return { id: body.metadata.id, fds: body.metadata.metadata.fds };
  }

  /** @throws {Error} "Unexpected server response: STATUS" */
  async socket(id: string, secret: string): Promise<WebSocket> {
    const socket = new WebSocket(`ws+unix:${this.#socket}:/1.0/operations/${id}/websocket?secret=${secret}`, {
      perMessageDeflate: false,
    });
    await once(socket, "open");
    return socket;
  }

  /** Opens all sockets of a command. @returns The sockets by name. */
  async sockets({ id, fds }: RawExec): Promise<Record<string, WebSocket>> {
    const names = Object.keys(fds);
    const sockets = await Promise.all(names.map((name) => this.socket(id, fds[name]!)));
    return Object.fromEntries(names.map((name, index) => [name, sockets[index]!]));
  }

  /** Waits up to 30 s for the operation. @returns Its state. */
  // deno-lint-ignore no-explicit-any
  async wait(id: string): Promise<any> {
    return (await this.ask("GET", `/1.0/operations/${id}/wait?timeout=30`)).body.metadata;
  }

  /** Waits for the end of an operation, which may take longer than one wait. @throws {Error} If it does not end in `endMaxMs`. */
  // deno-lint-ignore no-explicit-any
  async end(id: string): Promise<any> {
    const running = 103, limit = performance.now() + endMaxMs;
    for (;;) {
      const operation = await this.wait(id);
      if (operation.status_code !== running) return operation;
      if (performance.now() > limit) throw new Error(`Operation without an end: ${JSON.stringify(operation)}`);
    }
  }
}

export interface RawExec {
  readonly id: string;
  readonly fds: Readonly<Record<string, string>>;
}
