/** Talks to a guest API as a process of the container would: through the container's own mount and with a given uid. It is a process of its own,
 * because the effective uid belongs to a whole process. As a program: `guest_client.ts PID UID`. It reads a line of JSON for each connection (a
 * number and the text to send), and writes lines with the text received. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import net from "node:net";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";

interface Received {
  readonly id: number;
  readonly text?: string;
  readonly error?: string;
}

/** One connection. */
export class GuestConnection {
  text = "";
  error = "";
  isOver = false;
  #wake = () => {};

  receive({ text, error }: Received): void {
    if (text === undefined) {
      this.isOver = true;
      this.error = error ?? "";
    } else this.text += text;
    this.#wake();
  }

  /** Waits until the connection has ended. @returns All received text. */
  async whole(): Promise<string> {
    await this.until(() => this.isOver);
    return this.text;
  }

  /** @throws {Error} If the connection ends before. */
  async sees(pattern: RegExp): Promise<void> {
    await this.until(() => pattern.test(this.text) || this.isOver);
    if (!pattern.test(this.text)) throw new Error(`The guest did not see ${pattern} but ${JSON.stringify(this.text)}`);
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#wake = resolve);
  }
}

export class GuestClient implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #connections: GuestConnection[] = [];
  readonly #ended: Promise<unknown>;

  /** @param pid Pid of the container's init. @param uid Host uid to connect as. */
  constructor(pid: number, uid: number) {
    const root = join(fileURLToPath(import.meta.url), "../../..");
    this.#child = spawn(
      join(root, "node_modules/.bin/deno"),
      ["run", "-A", "--no-check", fileURLToPath(import.meta.url), String(pid), String(uid)],
      { stdio: ["pipe", "pipe", "inherit"], cwd: root },
    );
    this.#ended = new Promise((resolve) => this.#child.on("exit", resolve));
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      const received = JSON.parse(line) as Received;
      this.#connections[received.id]!.receive(received);
    });
  }

  connect(raw: string): GuestConnection {
    const connection = new GuestConnection();
    const id = this.#connections.push(connection) - 1;
    this.#child.stdin.write(`${JSON.stringify({ id, raw })}\n`);
    return connection;
  }

  /** @returns Status, content type and body. */
  async ask(method: string, path: string, body = ""): Promise<[number, string, string]> {
    const length = body ? `Content-Length: ${body.length}\r\n` : "";
    const text = await this.connect(
      `${method} ${path} HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n${length}\r\n${body}`,
    ).whole();
    const [head, ...rest] = text.split("\r\n\r\n");
    const status = Number(/^HTTP\/1\.1 (\d+)/.exec(head!)?.[1]);
    return [status, /^content-type: (.*)$/im.exec(head!)?.[1]?.trim() ?? "", rest.join("\r\n\r\n")];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await this.#ended;
  }
}

function serve(pid: string, uid: number): void {
  process.chdir(`/proc/${pid}/root/dev/lxd`);
  process.setegid!(uid);
  process.seteuid!(uid);
  const sockets = new Set<net.Socket>();
  const tell = (received: Received) => process.stdout.write(`${JSON.stringify(received)}\n`);
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const { id, raw } = JSON.parse(line) as { id: number; raw: string };
    const socket = net.connect("sock", () => socket.write(raw));
    sockets.add(socket);
    let error: string | undefined;
    socket.on("data", (chunk) => tell({ id, text: chunk.toString("latin1") }));
    socket.on("error", (cause) => error = String(cause));
    socket.on("close", () => tell({ id, ...(error ? { error } : {}) }));
  });
  lines.on("close", () => process.exit(0));
}

if (import.meta.main) serve(process.argv[2]!, Number(process.argv[3]));
