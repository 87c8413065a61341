/** `lido exec` between the client's own descriptors and a session. */
import type { Client } from "../client/client.ts";
import { OutputError, reasonOf } from "../client/errors.ts";
import { isTerminal } from "../terminal/is_terminal.ts";
import { readDescriptor, writeDescriptor } from "./descriptors.ts";
import type { DetachKey } from "./detach_key.ts";
import { type ExecEnd, type ExecRequest, ExecSession, type Sinks } from "./session.ts";
import { ignoredSignals, sigkill, SignalForwarder, sigpipe } from "./signals.ts";

/** Exit code of a client whose output is no longer read: 128 + SIGPIPE. */
const brokenPipe = 128 + sigpipe;
/** Exit code of a client that a second TERM ended: 128 + SIGTERM. */
const terminated = 143;
/** Exit code when the connection was lost and the command's fate is unknown. */
const connectionLost = 255;
/** Exit code of a client whose terminal was closed while its command continues: 128 + SIGHUP. */
const hungUp = 129;

export interface RunOptions {
  /** Undefined: interactive when stdin and stdout are terminals. */
  interactive: boolean | undefined;
  noStdin: boolean;
  request: Omit<ExecRequest, "interactive" | "width" | "height">;
}

/** Prints on stderr. */
type Say = (text: string) => void;

/** Runs a command and returns the client's exit code. */
export async function runExec(
  client: Client,
  instance: string,
  options: RunOptions,
  say: Say,
): Promise<number> {
  const stdinIsTerminal = !options.noStdin && await isTerminal(0);
  const interactive = options.interactive ?? (stdinIsTerminal && await isTerminal(1));
  const size = interactive ? (await loadTerminal()).windowSize() : { width: 0, height: 0 };
  const isDetachable = options.request.extra?.detachable === true;
  return await converse(
    { stdinIsTerminal, stdin: options.noStdin ? "empty" : "ours", isDetachable },
    (sinks) => ExecSession.start(client, instance, { ...options.request, interactive, ...size }, sinks),
    say,
  );
}

/** Attaches to a session.
 * @param noStdin Sends nothing to the command's stdin. @returns The client's exit code. */
export async function runAttach(client: Client, id: string, noStdin: boolean, say: Say): Promise<number> {
  const stdinIsTerminal = !noStdin && await isTerminal(0);
  return await converse(
    { stdinIsTerminal, stdin: noStdin ? "none" : "ours", isDetachable: true },
    (sinks) => ExecSession.attach(client, id, sinks),
    say,
  );
}

interface Ends {
  stdinIsTerminal: boolean;
  /** Input of the command: our stdin ("ours"), an immediate end ("empty"), or neither ("none"). */
  stdin: "ours" | "empty" | "none";
  isDetachable: boolean;
}

const loadTerminal = () => import("../terminal/raw.ts");

/** Connects our descriptors with a session, until one of them ends. */
async function converse(
  { stdinIsTerminal, stdin, isDetachable }: Ends,
  start: (sinks: Sinks) => Promise<ExecSession>,
  say: Say,
): Promise<number> {
  const complain = (message: string) => say(`Error: ${message}\n`);
  let session: ExecSession | undefined;
  let isErrorOutputLost = false;
  const giveUp = Promise.withResolvers<number>();
  using signals = new SignalForwarder(await ignoredSignals(), {
    giveUp: () => giveUp.resolve(terminated),
    // A closed terminal or a lost connection must not end a session that is meant to outlive them.
    ...(isDetachable ? { hangUp: () => giveUp.resolve(hungUp) } : {}),
  });
  const sink = (fd: number) => async (chunk: Uint8Array) => {
    try {
      await writeDescriptor(fd, chunk);
    } catch (error) {
      const code = (error as { code?: string }).code;
      // Continue when stderr has no reader or its disk is full. There is no other place to report that output was lost.
      if (fd === 2) {
        isErrorOutputLost ||= code !== "EPIPE";
        return;
      }
      if (code !== "EPIPE") complain(new OutputError(error).message);
      if (!isDetachable) session?.signal(sigpipe);
      giveUp.resolve(code === "EPIPE" ? brokenPipe : 1);
      // Never resolves, so that the stream is not read further.
      await new Promise<never>(() => {});
    }
  };
  using cleanup = new DisposableStack();
  try {
    session = await start({ stdout: sink(1), stderr: sink(2) });
  } catch (error) {
    complain((error as Error).message);
    return 1;
  }
  const running = session;
  if (running.isInteractive) {
    const terminal = await loadTerminal();
    if (stdinIsTerminal) cleanup.use(new terminal.RawMode());
    const resize = () => {
      const { width, height } = terminal.windowSize();
      if (width > 0) running.resize(width, height);
    };
    process.on("SIGWINCH", resize);
    cleanup.defer(() => process.off("SIGWINCH", resize));
    if (isDetachable) {
      resize(); // the session may have had another size
      say("To detach from the session, press: <ctrl>+a q\r\n");
    }
  }
  signals.attach(running);
  const key = isDetachable && running.isInteractive ? new (await import("./detach_key.ts")).DetachKey() : undefined;
  let isInputWhole = true;
  void sendInput(running, stdin, key).catch((error) => {
    isInputWhole = false;
    complain(`Cannot read stdin: ${reasonOf(error)}`);
  });
  let outcome: ExecEnd | number;
  try {
    outcome = await Promise.race([running.ended, giveUp.promise]);
  } catch (error) {
    cleanup.dispose();
    const again = running.id === undefined ? "" : `; its command goes on: lido exec --attach ${running.id}`;
    complain((error as Error).message + again);
    return connectionLost;
  }
  if (typeof outcome === "number") {
    if (outcome === terminated) running.signal(sigkill); // a session that is not detachable ends when it is closed
    running.close();
    return outcome;
  }
  cleanup.dispose();
  if (outcome.detached) {
    say(`Detached from session ${running.id}; come back with: lido exec --attach ${running.id}\n`);
    return 0;
  }
  if (outcome.error !== "") complain(outcome.error);
  const code = outcome.status ?? (outcome.error === "" ? connectionLost : 1);
  // Failure, although the command succeeded: it had only a part of its input, or a part of its output was lost.
  return code === 0 && (isErrorOutputLost || !isInputWhole && !stdinIsTerminal) ? 1 : code;
}

/** @param key Looked for in typed input. */
async function sendInput(session: ExecSession, stdin: Ends["stdin"], key: DetachKey | undefined): Promise<void> {
  if (stdin === "none") return;
  try {
    if (stdin === "ours") {
      for await (const chunk of readDescriptor(0)) {
        const { rest, isPressed } = key?.feed(chunk) ?? { rest: chunk, isPressed: false };
        if (rest.length > 0) await session.write(rest);
        if (!isPressed) continue;
        session.detach();
        return;
      }
    }
    await session.endInput();
  } catch (error) {
    await session.endInput();
    throw error;
  }
}
