import { isTerminal } from "./is_terminal.ts";

interface BunTty {
  binding(name: "tty_wrap"): { TTY: new (fd: number) => { getWindowSize(size: number[]): boolean } };
}

/** The width of the terminal on stdout, in columns.
 * @returns undefined when stdout is no terminal, or does not know its size: output is then not shortened. */
export async function terminalColumns(): Promise<number | undefined> {
  return await isTerminal(1) ? columnsOf(1) : undefined;
}

/** The present width of a terminal, in columns.
 * @returns undefined when it does not know its size. */
export function columnsOf(fd: 1 | 2): number | undefined {
  // As in isTerminal: `process.stdout` costs a start 9 ms on Bun, its binding nothing.
  if (process.versions.bun === undefined) return process[fd === 1 ? "stdout" : "stderr"].columns || undefined;
  const { TTY } = (process as unknown as BunTty).binding("tty_wrap");
  const size = [0, 0];
  new TTY(fd).getWindowSize(size);
  return size[0] || undefined;
}
