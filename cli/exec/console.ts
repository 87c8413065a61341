/** `lido console` between the client's own descriptors and an instance's console. */
import type { Client } from "../client/client.ts";
import { OutputError, UsageError } from "../client/errors.ts";
import { isTerminal } from "../terminal/is_terminal.ts";
import { readDescriptor, writeDescriptor } from "./descriptors.ts";
import { DetachKey } from "./detach_key.ts";
import { ExecSession } from "./session.ts";

/** Exit code when the connection was lost. */
const connectionLost = 255;
/** Signals that end the client; the console continues. */
const ends = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** Attaches until the detach key is pressed or the instance ends. @returns The client's exit code. */
export async function runConsole(client: Client, instance: string, type: string, say: (text: string) => void) {
  const { windowSize, RawMode } = await import("../terminal/raw.ts");
  const over = Promise.withResolvers<number>();
  const session = await ExecSession.console(client, instance, { type, ...windowSize() }, {
    stdout: async (chunk) => {
      try {
        await writeDescriptor(1, chunk);
      } catch (error) {
        over.reject(new OutputError(error));
        await new Promise<never>(() => {});
      }
    },
    stderr: () => {},
  });
  using cleanup = new DisposableStack();
  cleanup.defer(() => session.close());
  // As lxc does: a client without a keyboard would hold the console for ever, which only one client can have at a time. Checked after the attach,
  // because an error of the instance comes first.
  if (!await isTerminal(0)) {
    throw new UsageError(
      'Cannot attach to a console without a terminal as stdin: "--show-log" shows what it printed last',
    );
  }
  cleanup.use(new RawMode());
  const listen = (name: NodeJS.Signals, listener: () => void) => {
    process.on(name, listener);
    cleanup.defer(() => process.off(name, listener));
  };
  listen("SIGWINCH", () => {
    const { width, height } = windowSize();
    if (width > 0) session.resize(width, height);
  });
  for (const [name, code] of Object.entries(ends)) listen(name as NodeJS.Signals, () => over.resolve(code));
  await writeDescriptor(2, new TextEncoder().encode("To detach from the console, press: <ctrl>+a q\r\n"));
  void sendKeys(session).then((isDetached) => isDetached && over.resolve(0), () => over.resolve(1));
  const ended = session.ended.then(({ error }) => {
    if (error === "") return 0;
    cleanup.dispose();
    say(`Error: ${error}\n`);
    return 1;
  }, (error: Error) => {
    cleanup.dispose();
    say(`Error: ${error.message}\n`);
    return connectionLost;
  });
  return await Promise.race([over.promise, ended]);
}

/** @returns Whether the detach key was pressed; otherwise input has ended, and the console's output continues. */
async function sendKeys(session: ExecSession): Promise<boolean> {
  const key = new DetachKey();
  for await (const chunk of readDescriptor(0)) {
    const { rest, isPressed } = key.feed(chunk);
    if (rest.length > 0) await session.write(rest);
    if (isPressed) return true;
  }
  return false;
}
