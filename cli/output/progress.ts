/** One line on the terminal that says how far something is; nothing when stderr is no terminal or nobody wants it. */
import type { Operation } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { openWebSocket } from "../client/websocket.ts";
import { isTerminal } from "../terminal/is_terminal.ts";
import type { Io } from "../verb.ts";
import { neutralise } from "./text.ts";

const clearLine = "\r\x1b[K";

export interface ProgressLine extends Disposable {
  show(text: string): void;
}

/** @returns Undefined where none is to be shown. */
export async function progressLine(io: Io): Promise<ProgressLine | undefined> {
  if (io.quiet || !await isTerminal(2)) return undefined;
  const { writeSync } = await import("node:fs");
  return {
    show: (text) => void writeSync(2, `${clearLine}${neutralise(text)}`),
    [Symbol.dispose]: () => void writeSync(2, clearLine),
  };
}

/** A change whose operation tells of its progress, shown while it runs. Ctrl-C cancels it, where the daemon can; a second one only ends us. */
export async function changeWithProgress(
  io: Io,
  method: "POST" | "PUT",
  path: string,
  body: unknown,
): Promise<Operation | undefined> {
  using line = await progressLine(io);
  let operation: Operation | undefined;
  const socket = line && await openWebSocket(io.client.endpoint, "/1.0/events?type=operation", {
    message(data) {
      const { metadata } = JSON.parse(data.toString()) as { metadata: Operation };
      const text = metadata.metadata?.fs_progress;
      if (metadata.id === operation?.id && typeof text === "string") line.show(text);
    },
  });
  const cancel = () => {
    if (operation?.may_cancel) io.client.request("DELETE", url`/1.0/operations/${operation.id}`).catch(() => {});
  };
  process.once("SIGINT", cancel);
  try {
    return await io.client.change(method, path, body, { onOperation: (started) => operation = started });
  } finally {
    process.off("SIGINT", cancel);
    socket?.terminate();
  }
}
