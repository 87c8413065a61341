import { LidoError } from "../../api/errors.ts";
import { ClientSockets, type Stream } from "./client_sockets.ts";
import type { Command } from "./command.ts";
import { obey } from "./control.ts";
import type { Sink } from "./output.ts";
import { nowhere } from "./sinks.ts";

/** A command that ends with its client. */
export class Session {
  readonly #sockets: ClientSockets;
  readonly #isEager: boolean;
  #command: Command | undefined;
  #isAbandoned = false;

  /** @param options.eager The command is started while the client still connects; it is killed if the client does not connect. */
  constructor(options: { interactive: boolean; eager: boolean }) {
    this.#sockets = new ClientSockets(options.interactive);
    this.#isEager = options.eager;
  }

  get fds(): Record<string, string> {
    return this.#sockets.fds;
  }

  connect(secret: string): ReturnType<ClientSockets["connect"]> {
    return this.#sockets.connect(secret);
  }

  /** Waits for the client, runs the command and sends its output.
   * @returns The exit code. @throws {LidoError} When the client does not connect; {LaunchError} when the command cannot be started. */
  async run(launch: (stdout: Sink, stderr: Sink) => Promise<Command>): Promise<number> {
    const sockets = this.#sockets;
    const [stdout, stderr = nowhere] = sockets.outputs.map((name) => sockets.sink(name));
    const start = async () => {
      const command = await launch(stdout!, stderr);
      this.#command = command;
      if (this.#isAbandoned) command.abandon();
      return command;
    };
    try {
      if (!this.#isEager) await sockets.connected();
      const command = await start();
      if (this.#isEager) await this.#comesTo(command);
      sockets.serve({
        input: (chunk) => command.input.write(chunk),
        endInput: () => command.input.end(),
        control: (text) => obey(command, text),
        gone: (stream) => this.#gone(stream, command),
      });
      return await command.ended;
    } finally {
      await sockets.end();
    }
  }

  /** Ends the command, or the wait for its client. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#sockets.cancel(new LidoError("bad_request", "The command was cancelled"));
    this.#command?.abandon();
  }

  async #comesTo(command: Command): Promise<void> {
    try {
      await this.#sockets.connected();
    } catch (error) {
      command.abandon();
      await command.ended;
      throw error;
    }
  }

  /** Ends the command, as LXD, when the client has closed its control socket, or has none and has closed all outputs. */
  #gone(stream: Stream, command: Command): void {
    const { outputs } = this.#sockets;
    const isOpen = (one: Stream) => this.#sockets.isOpen(one);
    if (stream === "control" || (!isOpen("control") && !outputs.some(isOpen))) command.abandon();
    else if (outputs.includes(stream)) command.closeOutput(outputs.indexOf(stream));
    else if (stream === "0") command.input.end();
  }
}
