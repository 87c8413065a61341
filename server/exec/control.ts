import { execControlSchema } from "../../api/types.ts";

/** What a control socket controls: a command or a console. */
export interface Controlled {
  /** @param size In characters, 1 to 65535. */
  resize(size: { width: number; height: number }): void;
  /** Absent for a console, which has only the signals that its terminal makes from keys. */
  signal?(signal: number): void;
}

/** Handles a message of the control socket.
 * @param text Undefined for a binary message. @param detach Absent when the session ends with its client.
 * @returns The reason why a message is refused. */
export function obey(command: Controlled, text: string | undefined, detach?: () => void): string | undefined {
  if (text === undefined) return "Invalid control message: text is allowed";
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "Invalid control message: not JSON";
  }
  const result = execControlSchema.safeParse(value);
  if (!result.success) return "Invalid control message: window-resize, detach or a signal from 1 to 64 is allowed";
  const message = result.data;
  if (message.command === "detach") {
    if (!detach) return "The session is not detachable";
    detach();
  } else if (message.command === "signal") {
    if (!command.signal) return "A console takes no signals";
    command.signal(message.signal);
  } else {
    const [width, height] = [Number(message.args.width), Number(message.args.height)];
    if (!isWindowSize(width) || !isWindowSize(height)) {
      return `Invalid window size ${width}x${height}: from 1 to 65535 is allowed`;
    }
    command.resize({ width, height });
  }
  return undefined;
}

export function isWindowSize(value: number): boolean {
  return value >= 1 && value <= 65535;
}
