/** A command in an instance, with web streams: the same in Deno, Node and Bun. */
import type { Client } from "../client/client.ts";
import { ConnectionError } from "../client/errors.ts";
import { type ExecRequest, ExecSession, type Sinks } from "../exec/session.ts";
import { Outlet } from "./outlet.ts";

export interface ExecOptions {
  readonly environment?: Readonly<Record<string, string>>;
  /** Absolute path in the instance; default: the user's home. A missing directory is an error. */
  readonly cwd?: string;
  /** A numeric id, or a name in the instance's own /etc/passwd. */
  readonly user?: number | string;
  readonly group?: number;
  /** Gives the command a terminal of this size, in characters; all its output then comes on `stdout`. */
  readonly terminal?: { readonly width: number; readonly height: number };
  /** Output ends only when no process in the instance has it open, as with ssh; by default it ends with the command. */
  readonly waitOutput?: boolean;
  /** The command continues when this program detaches from it or ends; `Lido.attach` attaches to it again. */
  readonly detachable?: boolean;
}

export interface ExecStatus {
  /** The command's exit code; 128+n when signal n ended it, 127 when it was not found, 126 when it could not be executed. */
  readonly code: number;
  readonly success: boolean;
}

export class ExecProcess {
  readonly stdin: WritableStream<Uint8Array>;
  /** Each stream ends with its own data, independent of the other. Up to a MiB of unread data is buffered; then the command blocks,
   * or, when the other stream has a reader and this one has none, the rest is dropped, and reading it later ends with an error that says so.
   * Cancel a stream that is not needed. */
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: ReadableStream<Uint8Array>;
  /** Resolves when the command has ended and its output was read, or fits into the buffers.
   * @throws {ConnectionError} When the connection was lost before. @throws {Error} When the command could not be run. */
  readonly status: Promise<ExecStatus>;
  readonly #session: ExecSession;

  private constructor(session: ExecSession, stdout: Outlet, stderr: Outlet) {
    this.#session = session;
    this.stdout = stdout.stream;
    this.stderr = stderr.stream;
    this.stdin = new WritableStream({
      write: (chunk) => session.write(chunk),
      close: () => session.endInput(),
      abort: () => session.endInput(),
    });
    this.status = this.#wait([stdout, stderr]);
    this.status.catch(() => {});
  }

  /** @throws {ApiError} When the daemon refuses. @throws {ConnectionError} When it cannot be reached. */
  static async start(
    client: Client,
    instance: string,
    command: readonly string[],
    options: ExecOptions,
  ): Promise<ExecProcess> {
    const { user = 0 } = options;
    const request: ExecRequest = {
      command: [...command],
      interactive: options.terminal !== undefined,
      environment: { ...options.environment },
      width: options.terminal?.width ?? 0,
      height: options.terminal?.height ?? 0,
      user: typeof user === "number" ? user : 0,
      group: options.group ?? 0,
      cwd: options.cwd ?? "",
      extra: {
        ...(typeof user === "string" ? { "user-name": user, "group-set": options.group !== undefined } : {}),
        ...(options.waitOutput ? { "wait-output": true } : {}),
        ...(options.detachable ? { detachable: true } : {}),
      },
    };
    return await ExecProcess.#of((sinks) => ExecSession.start(client, instance, request, sinks));
  }

  /** Attaches to a session. @throws {ApiError} When there is none. */
  static attach(client: Client, id: string): Promise<ExecProcess> {
    return ExecProcess.#of((sinks) => ExecSession.attach(client, id, sinks));
  }

  static async #of(start: (sinks: Sinks) => Promise<ExecSession>): Promise<ExecProcess> {
    const stdout = new Outlet("stdout"), stderr = new Outlet("stderr");
    stdout.sibling = stderr;
    stderr.sibling = stdout;
    const outlets = { stdout, stderr };
    const ended = (stream: keyof typeof outlets) => outlets[stream].end();
    return new ExecProcess(await start({ stdout: stdout.sink, stderr: stderr.sink, ended }), stdout, stderr);
  }

  /** Sends a signal by number, 1 to 64; default: SIGTERM. */
  kill(signal = 15): void {
    this.#session.signal(signal);
  }

  /** Sets the terminal's size in characters, 1 to 65535. */
  resize(width: number, height: number): void {
    this.#session.resize(width, height);
  }

  /** Detaches from a detachable command, which continues; `status` then rejects. @returns The id of its session. */
  async detach(): Promise<string> {
    this.#session.detach();
    const { detached } = await this.#session.ended;
    if (!detached || this.#session.id === undefined) throw new Error("The command ended before it was detached from");
    return this.#session.id;
  }

  /** Closes the session at once; the daemon kills the command unless it is detachable. */
  [Symbol.dispose](): void {
    this.#session.close();
  }

  async #wait(outlets: readonly Outlet[]): Promise<ExecStatus> {
    try {
      const { status, error, detached } = await this.#session.ended;
      if (detached) throw new Error(`Detached from session ${this.#session.id}`);
      if (error !== "" && status === undefined) throw new Error(error);
      if (status === undefined) throw new ConnectionError("Lost the command: its exit code is unknown");
      for (const outlet of outlets) outlet.end();
      return { code: status, success: status === 0 };
    } catch (error) {
      for (const outlet of outlets) outlet.end({ error });
      throw error;
    }
  }
}
