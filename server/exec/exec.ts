import { mkdirSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { LidoError, messageOf } from "../../api/errors.ts";
import type { InstanceExecPost } from "../../api/types.ts";
import type { Poller } from "../../drivers/host/poll/poll.ts";
import { type CommandSpec, LaunchError, type Runtime } from "../../drivers/runtime/runtime.ts";
import type { Events } from "../events/events.ts";
import type { ExecTarget } from "../instances/instances.ts";
import type { Operation, Operations } from "../operations/operations.ts";
import { Command } from "./command.ts";
import type { Sink } from "./output.ts";
import { commandSpec } from "./request.ts";
import { ClientSockets } from "./client_sockets.ts";
import type { DetachableSession } from "./detachable.ts";
import { Session } from "./session.ts";
import type { ExecSessions } from "./sessions.ts";
import { FileSink, nowhere } from "./sinks.ts";

export interface ExecServices {
  readonly runtime: Runtime;
  readonly poller: Poller;
  readonly operations: Operations;
  readonly events: Events;
  readonly sessions: ExecSessions;
  /** @throws {LidoError} not_found; bad_request when it does not run. */
  readonly target: (name: string) => ExecTarget;
  /** `$LIDO_DIR/logs`; recorded output goes to the instance's directory below it. */
  readonly logs: string;
}

/** Commands in running containers. */
export class ExecService {
  readonly #services: ExecServices;

  constructor(services: ExecServices) {
    this.#services = services;
  }

  /** @throws {LidoError} not_found; bad_request for an invalid request, or a container in which nothing can be run. */
  async start(name: string, post: InstanceExecPost): Promise<Operation> {
    const { runtime, target } = this.#services;
    const spec = await commandSpec(runtime, target(name), post);
    if (post.detachable) {
      return post["wait-for-websocket"] ? this.#detachable(name, post, spec) : this.#detached(name, post, spec);
    }
    return post["wait-for-websocket"] ? this.#connected(name, post, spec) : this.#unattended(name, post, spec);
  }

  /** Attaches a client to a session again. @throws {LidoError} not_found; bad_request for one that ended with an earlier daemon. */
  attach(id: string): Operation {
    const session = this.#services.sessions.get(id);
    const sockets = new ClientSockets(session.isInteractive);
    const metadata = { command: session.argv, fds: sockets.fds, interactive: session.isInteractive, session: id };
    return this.#services.operations.start({
      ...described(session.instance),
      class: "websocket",
      metadata,
      connect: (secret) => sockets.connect(secret),
      cancel: () => {
        sockets.cancel(new LidoError("bad_request", "The operation was cancelled"));
        session.detach();
      },
      run: (operation) => this.#attached(operation, session, sockets),
    });
  }

  #connected(name: string, post: InstanceExecPost, spec: CommandSpec): Operation {
    const session = new Session(post);
    const { command, interactive } = post;
    return this.#services.operations.start({
      ...described(name),
      class: "websocket",
      metadata: { command, environment: spec.environment, fds: session.fds, interactive },
      connect: (secret) => session.connect(secret),
      cancel: () => session.abandon(),
      run: (operation) =>
        finish(operation, () => session.run((stdout, stderr) => this.#launch(name, post, spec, stdout, stderr))),
    });
  }

  /** Starts a detachable session with its first client. */
  #detachable(name: string, post: InstanceExecPost, spec: CommandSpec): Operation {
    const { command, interactive } = post;
    const sockets = new ClientSockets(interactive);
    let session: DetachableSession | undefined;
    return this.#services.operations.start({
      ...described(name),
      class: "websocket",
      metadata: { command, environment: spec.environment, fds: sockets.fds, interactive },
      connect: (secret) => sockets.connect(secret),
      cancel: () => {
        sockets.cancel(new LidoError("bad_request", "The command was cancelled"));
        session?.kill();
      },
      run: async (operation) => {
        try {
          session = await this.#startSession(operation, name, post, spec);
        } catch (error) {
          await sockets.end();
          throw error;
        }
        if (operation.signal.aborted) session.kill();
        await this.#attached(operation, session, sockets);
      },
    });
  }

  /** Starts a detachable session without a client. Without a terminal it gets no input: a command waiting for input would look like a working one. */
  #detached(name: string, post: InstanceExecPost, spec: CommandSpec): Operation {
    return this.#services.operations.start({
      ...described(name),
      metadata: { command: post.command, environment: spec.environment, interactive: post.interactive },
      run: async (operation) => {
        const session = await this.#startSession(operation, name, post, spec);
        if (!post.interactive) session.endInput();
      },
    });
  }

  #startSession(
    operation: Operation,
    name: string,
    post: InstanceExecPost,
    spec: CommandSpec,
  ): Promise<DetachableSession> {
    return withExitCode(operation, async () => {
      const { interactive } = post;
      const session = await this.#services.sessions.start(
        { instance: name, argv: spec.argv, interactive },
        (stdout, stderr) => this.#launch(name, post, spec, stdout, stderr),
      );
      operation.update({ session: session.id });
      return session;
    });
  }

  /** Serves a client's attachment to a session. Deletes the session once the client has got the exit code. */
  async #attached(operation: Operation, session: DetachableSession, sockets: ClientSockets): Promise<void> {
    const end = await session.attach(sockets);
    if (end.kind === "detached") return operation.update({ detached: true });
    operation.update({ return: end.code });
    this.#services.sessions.forget(session.id);
  }

  #unattended(name: string, post: InstanceExecPost, spec: CommandSpec): Operation {
    let running: Command | undefined;
    return this.#services.operations.start({
      ...described(name),
      metadata: { command: post.command, environment: spec.environment, interactive: false },
      cancel: () => running?.abandon(),
      run: (operation) =>
        finish(operation, async () => {
          await using record = post["record-output"]
            ? await Record.open(this.#services.logs, name, operation.id)
            : undefined;
          const [stdout = nowhere, stderr = nowhere] = record?.sinks ?? [];
          running = await this.#launch(name, { ...post, interactive: false }, spec, stdout, stderr);
          if (operation.signal.aborted) running.abandon();
          running.input.end();
          const code = await running.ended;
          if (record) operation.update({ output: record.urls });
          return code;
        }),
    });
  }

  async #launch(
    name: string,
    post: InstanceExecPost,
    spec: CommandSpec,
    stdout: Sink,
    stderr: Sink,
  ): Promise<Command> {
    const { runtime, poller, events } = this.#services;
    const command = await Command.start(poller, {
      launch: (stdio) => runtime.exec(name, spec, stdio),
      ...(post.interactive ? { terminal: { width: post.width, height: post.height } } : {}),
      stdout,
      stderr,
      waitOutput: post["wait-output"],
    });
    events.lifecycle("instance-exec", `/1.0/instances/${encodeURIComponent(name)}`, { command: spec.argv });
    return command;
  }
}

function described(name: string) {
  const part = encodeURIComponent(name);
  return {
    description: "Executing command",
    resources: { containers: [`/1.0/containers/${part}`], instances: [`/1.0/instances/${part}`] },
  };
}

/** Puts the exit code into the operation, which succeeds if the command has ended, with any code, and fails if it could not be started. */
async function finish(operation: Operation, run: () => Promise<number>): Promise<void> {
  operation.update({ return: await withExitCode(operation, run) });
}

/** Puts the exit code of a command that could not be started into the operation, too. */
async function withExitCode<T>(operation: Operation, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof LaunchError) operation.update({ return: error.exitCode });
    throw error;
  }
}

/** The files of a command whose output is recorded. */
class Record implements AsyncDisposable {
  readonly sinks: readonly [FileSink, FileSink];
  readonly urls: { 1: string; 2: string };
  readonly #files: readonly [FileHandle, FileHandle];

  private constructor(files: readonly [FileHandle, FileHandle], urls: { 1: string; 2: string }) {
    this.#files = files;
    this.sinks = [new FileSink(files[0]), new FileSink(files[1])];
    this.urls = urls;
  }

  static async open(logs: string, name: string, id: string): Promise<Record> {
    const directory = join(logs, name);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const base = `exec_${id}`;
    const stdout = await open(join(directory, `${base}.stdout`), "wx", 0o600);
    const stderr = await open(join(directory, `${base}.stderr`), "wx", 0o600);
    const url = (stream: string) => `/1.0/instances/${encodeURIComponent(name)}/logs/${base}.${stream}`;
    return new Record([stdout, stderr], { 1: url("stdout"), 2: url("stderr") });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#files.map((file) => file.close()));
    const error = this.sinks.find((sink) => sink.error !== undefined)?.error;
    if (error !== undefined) throw new Error(`Failed to record the output: ${messageOf(error)}`);
  }
}
