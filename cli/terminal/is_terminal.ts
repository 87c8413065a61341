/** Whether a file descriptor is a terminal. On Bun the binding behind node:tty is asked directly: loading node:tty
 * costs a client start 9 ms there. */
export async function isTerminal(fd: number): Promise<boolean> {
  if (process.versions.bun !== undefined) {
    const binding = (process as unknown as { binding(name: string): { isTTY(fd: number): boolean } }).binding(
      "tty_wrap",
    );
    return binding.isTTY(fd);
  }
  return (await import("node:tty")).isatty(fd);
}
