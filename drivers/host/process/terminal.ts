import { check, libc } from "../ffi/libc.ts";

const TCGETS = 0x5401, TCSETSW = 0x5403, TIOCGWINSZ = 0x5413;
const IGNBRK = 1, BRKINT = 2, PARMRK = 8, ISTRIP = 0x20, INLCR = 0x40, IGNCR = 0x80, ICRNL = 0x100, IXON = 0x400;
const OPOST = 1;
const ISIG = 1, ICANON = 2, ECHO = 8, ECHONL = 0x40, IEXTEN = 0x8000;
const CSIZE = 0x30, PARENB = 0x100, CS8 = 0x30;
const VTIME = 5, VMIN = 6, charactersOffset = 17;
const termiosBytes = 64;

/** Makes a terminal pass on every byte both ways, as cfmakeraw(3): Node's own raw mode still writes "\r\n" for "\n", which a full-screen program in
 * an instance does not expect. @returns A function that restores the terminal. @throws {SystemCallError} When `fd` is no terminal. @see termios(3) */
export function makeRaw(fd: number): () => void {
  const before = new Uint8Array(termiosBytes);
  check("read terminal settings", libc.ioctl(fd, TCGETS, before));
  const raw = before.slice();
  const view = new DataView(raw.buffer);
  const change = (offset: number, off: number, on = 0) =>
    view.setUint32(offset, (view.getUint32(offset, true) & ~off | on) >>> 0, true);
  change(0, IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  change(4, OPOST);
  change(8, CSIZE | PARENB, CS8);
  change(12, ECHO | ECHONL | ICANON | ISIG | IEXTEN);
  raw[charactersOffset + VMIN] = 1;
  raw[charactersOffset + VTIME] = 0;
  check("set terminal settings", libc.ioctl(fd, TCSETSW, raw));
  // Errors are ignored: a terminal that is gone needs no restoring.
  return () => void libc.ioctl(fd, TCSETSW, before);
}

/** @returns In characters; undefined when `fd` is no terminal. @see TIOCGWINSZ(2const) */
export function windowSizeOf(fd: number): { width: number; height: number } | undefined {
  const size = new Uint16Array(4);
  if (libc.ioctl(fd, TIOCGWINSZ, new Uint8Array(size.buffer)) !== 0) return undefined;
  return { width: size[1]!, height: size[0]! };
}
