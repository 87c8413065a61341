/** `lido exec` between the client's own descriptors and a session. */
import type { Client } from "../client/client.ts";
import { isTerminal } from "../terminal/is_terminal.ts";
import { readDescriptor, writeDescriptor } from "./descriptors.ts";
import { type ExecEnd, type ExecRequest, ExecSession } from "./session.ts";
import { SignalForwarder, sigpipe } from "./signals.ts";

/** Exit code of a client whose reader went away: 128 + SIGPIPE. */
const brokenPipe = 128 + sigpipe;
/** Exit code of a client that a second TERM ended: 128 + SIGTERM. */
const terminated = 143;
/** Exit code when the connection was lost and nobody knows what became of the command. */
const connectionLost = 255;

export interface RunOptions {
  /** Undefined: interactive when stdin and stdout are terminals. */
  interactive: boolean | undefined;
  noStdin: boolean;
  request: Omit<ExecRequest, "interactive" | "width" | "height">;
}

/** Starts the session; the argument tells it whether it is interactive and where its output goes. */
export type Start = (
  shape: { interactive: boolean; width: number; height: number },
  sinks: { stdout(chunk: Uint8Array): Promise<void>; stderr(chunk: Uint8Array): Promise<void> },
) => Promise<ExecSession>;

/** Runs a command and returns the client's exit code.
 * @param complain Prints an error message. */
export async function runExec(
  client: Client,
  instance: string,
  options: RunOptions,
  complain: (message: string) => void,
): Promise<number> {
  return await runSession(
    options.interactive,
    options.noStdin,
    (shape, sinks) => ExecSession.start(client, instance, { ...options.request, ...shape }, sinks),
    complain,
  );
}

/** As `runExec`, for any way of getting a session. */
export async function runSession(
  wanted: boolean | undefined,
  noStdin: boolean,
  start: Start,
  complain: (message: string) => void,
): Promise<number> {
  const stdinIsTerminal = !noStdin && await isTerminal(0);
  const interactive = wanted ?? (stdinIsTerminal && await isTerminal(1));
  const terminal = interactive ? await import("../terminal/raw.ts") : undefined;

  let session: ExecSession | undefined;
  const giveUp = Promise.withResolvers<number>();
  using signals = new SignalForwarder(() => giveUp.resolve(terminated));
  const sink = (fd: number) => async (chunk: Uint8Array) => {
    try {
      await writeDescriptor(fd, chunk);
    } catch (error) {
      const code = (error as { code?: string }).code;
      // Nobody reads what goes to stderr any more: that is no reason to stop.
      if (fd === 2) return;
      if (code !== "EPIPE") complain(`Cannot write to stdout: ${(error as Error).message}`);
      session?.signal(sigpipe);
      giveUp.resolve(code === "EPIPE" ? brokenPipe : 1);
      // Never resolves: the stream is not read any further.
      await new Promise<never>(() => {});
    }
  };
  const size = terminal?.windowSize() ?? { width: 0, height: 0 };
  using cleanup = new DisposableStack();
  try {
    session = await start({ interactive, ...size }, { stdout: sink(1), stderr: sink(2) });
  } catch (error) {
    complain((error as Error).message);
    return 1;
  }
  signals.attach(session);
  const running = session;
  if (terminal !== undefined) {
    if (stdinIsTerminal) cleanup.use(new terminal.RawMode());
    const resize = () => {
      const { width, height } = terminal.windowSize();
      if (width > 0) running.resize(width, height);
    };
    process.on("SIGWINCH", resize);
    cleanup.defer(() => process.off("SIGWINCH", resize));
  }
  void sendInput(running, noStdin).catch((error) => complain(`Cannot read stdin: ${(error as Error).message}`));
  let outcome: ExecEnd | number;
  try {
    outcome = await Promise.race([running.ended, giveUp.promise]);
  } catch (error) {
    cleanup.dispose();
    complain((error as Error).message);
    return connectionLost;
  }
  if (typeof outcome === "number") {
    running.close();
    return outcome;
  }
  cleanup.dispose();
  if (outcome.error !== "") complain(outcome.error);
  return outcome.status ?? (outcome.error === "" ? connectionLost : 1);
}

async function sendInput(session: ExecSession, noStdin: boolean): Promise<void> {
  try {
    if (!noStdin) { for await (const chunk of readDescriptor(0)) await session.write(chunk.slice()); }
  } finally {
    await session.endInput().catch(() => {});
  }
}
