import { LidoError } from "../../api/errors.ts";
import { ClientSockets, type Stream } from "./client_sockets.ts";
import type { Command } from "./command.ts";
import { obey } from "./control.ts";
import type { Sink } from "./output.ts";
import { Replay } from "./replay.ts";

/** How a client's attachment to a session ended. */
export type AttachmentEnd = { readonly kind: "ended"; readonly code: number } | { readonly kind: "detached" };

/** The client that is attached to a session now. */
interface Attachment {
  readonly sockets: ClientSockets;
  readonly over: PromiseWithResolvers<AttachmentEnd>;
  /** Pending while earlier output is still being sent. */
  caughtUp: Promise<void> | undefined;
}

/** A command that goes on without its client. Without a client, its output is read and the last of it kept; with a client, the command writes no
 * faster than the client reads, as in any session. */
export class DetachableSession {
  readonly id: string;
  readonly instance: string;
  readonly argv: readonly string[];
  readonly isInteractive: boolean;
  readonly createdAt = new Date();
  readonly #replay = new Replay<Stream>();
  #attachment: Attachment | undefined;
  #command: Command | undefined;
  #end: { readonly code?: number; readonly error?: unknown; readonly at: Date } | undefined;

  constructor(options: { id: string; instance: string; argv: readonly string[]; interactive: boolean }) {
    this.id = options.id;
    this.instance = options.instance;
    this.argv = options.argv;
    this.isInteractive = options.interactive;
  }

  /** Starts the command.
   * @param onEnd Called once, when the command has ended. @throws {LaunchError} */
  async start(launch: (stdout: Sink, stderr: Sink) => Promise<Command>, onEnd: () => void): Promise<void> {
    const [stdout, stderr] = this.isInteractive ? (["0", "0"] as const) : (["1", "2"] as const);
    const command = await launch(this.#sink(stdout), this.#sink(stderr));
    this.#command = command;
    void command.ended.then((code) => ({ code }), (error: unknown) => ({ error })).then((end) => {
      this.#end = { ...end, at: new Date() };
      onEnd();
    });
  }

  /** The exit code of a command that has ended; also undefined when it is not known. */
  get code(): number | undefined {
    return this.#end?.code;
  }

  get endedAt(): Date | undefined {
    return this.#end?.at;
  }

  get isAttached(): boolean {
    return this.#attachment !== undefined;
  }

  /** Ends the input, as for a command in the background of a script. */
  endInput(): void {
    this.#command?.input.end();
  }

  kill(): void {
    this.#command?.abandon();
  }

  /** Detaches the attached client. */
  detach(): void {
    this.#attachment?.over.resolve({ kind: "detached" });
  }

  /** Ends the command, with a reason for the attached client. */
  stop(reason: Error): void {
    this.#attachment?.over.reject(reason);
    this.kill();
  }

  /** Resolves when the command has ended, also after a failure. */
  async ended(): Promise<void> {
    await this.#command?.ended.catch(() => {});
  }

  /** Waits for a client and attaches it: sends it the last output, then the new output. Detaches an earlier client.
   * @throws {LidoError} When the client does not connect, or another client took over the session. */
  async attach(sockets: ClientSockets): Promise<AttachmentEnd> {
    const command = this.#command;
    if (!command) throw new LidoError("bad_request", `Session "${this.id}" has not started`);
    let end: AttachmentEnd;
    let has = false;
    try {
      await sockets.connected();
      this.#attachment?.over.reject(
        new LidoError("conflict", `Session "${this.id}" was taken over by another client`),
      );
      const attachment: Attachment = { sockets, over: Promise.withResolvers(), caughtUp: undefined };
      this.#attachment = attachment;
      attachment.caughtUp = this.#catchUp(attachment);
      try {
        end = await this.#serve(attachment, command);
      } finally {
        if (this.#attachment === attachment) this.#attachment = undefined;
      }
    } finally {
      has = await sockets.end();
    }
    // Keep the session: the next client may read what this one did not receive.
    return end.kind === "ended" && !has ? { kind: "detached" } : end;
  }

  async #serve(attachment: Attachment, command: Command): Promise<AttachmentEnd> {
    const { sockets, over } = attachment;
    const detach = () => over.resolve({ kind: "detached" });
    sockets.serve({
      input: (chunk) => command.input.write(chunk),
      endInput: () => command.input.end(),
      control: (text) => obey(command, text, detach),
      // A client is attached while its control socket is open; without one, while it reads an output.
      gone: (stream) => {
        const reads = sockets.outputs.some((output) => sockets.isOpen(output));
        if (stream === "control" || (!sockets.isOpen("control") && !reads)) detach();
      },
    });
    const ended = command.ended.then(async (code): Promise<AttachmentEnd> => {
      await attachment.caughtUp;
      return { kind: "ended", code };
    });
    return await Promise.race([ended, over.promise]);
  }

  async #catchUp(attachment: Attachment): Promise<void> {
    for (const { stream, chunk } of this.#replay.all()) await attachment.sockets.sink(stream).write(chunk);
    attachment.caughtUp = undefined;
  }

  #sink(stream: Stream): Sink {
    return {
      write: (chunk) => {
        this.#replay.push(stream, chunk);
        const attachment = this.#attachment;
        const sink = attachment?.sockets.sink(stream);
        return attachment?.caughtUp ? attachment.caughtUp.then(() => sink!.write(chunk)) : sink?.write(chunk);
      },
    };
  }
}
