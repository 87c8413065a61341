import { UsageError } from "../client/errors.ts";
import { verb } from "../verb.ts";

const levels = ["trace", "debug", "info", "warn", "error", "fatal"];

/** @throws {UsageError} When /etc/group has no such group. */
async function groupId(name: string): Promise<number> {
  const { readFileSync } = await import("node:fs");
  for (const line of readFileSync("/etc/group", "utf8").split("\n")) {
    const [group, , id] = line.split(":");
    if (group === name) return Number(id);
  }
  throw new UsageError(`Group "${name}" not found in /etc/group`);
}

export const verbs = [verb({
  words: "daemon",
  args: [],
  flags: {
    group: { value: "name", summary: "Group whose members may use the socket, which gives them root's power" },
    lxcfs: { value: "path", summary: "Where LXCFS is mounted, if it runs (LIDO_LXCFS, or /var/lib/lxcfs)" },
    consoles: {
      value: "directory",
      hidden: true,
      summary: "Hold the consoles of running containers, for the daemon that starts this",
    },
    files: { hidden: true, summary: "Touch files that may never answer, for the daemon that starts this" },
    logLevel: { value: "level", values: levels, initial: "info", summary: levels.join(", ") },
  },
  summary: "Run the daemon",
  details: `It serves LXD's API on $LIDO_DIR/unix.socket (LIDO_DIR is /var/lib/lido when unset) and logs JSON to stderr:
at level info a line for each operation and each change, with who asked for it, how long it took and how it ended; at
level debug also what was only looked at, and each tool of the host that was run. "lido monitor --type logging" shows
all levels whatever the daemon's own is.
Where LXCFS runs, containers see their own limits in /proc and /sys; it may be started, and end, at any time.
TERM and INT end it cleanly; containers go on and are found again by the next daemon.
`,
  async run(_io, _args, flags) {
    if (flags.consoles !== undefined) {
      const { serveConsoles } = await import("../../drivers/runtime/console/server.ts");
      return serveConsoles();
    }
    if (flags.files) {
      const { serveFiles } = await import("../../drivers/runtime/files/file_server.ts");
      return serveFiles();
    }
    if (!levels.includes(flags.logLevel)) {
      throw new UsageError(`Invalid log level "${flags.logLevel}": ${levels.join(", ")} are allowed`);
    }
    const { resolve } = await import("node:path");
    const { logFaults, startDaemon } = await import("../../server/main.ts");
    const group = flags.group === undefined ? undefined : await groupId(flags.group);
    const daemon = await startDaemon({
      directory: resolve(process.env.LIDO_DIR || "/var/lib/lido"),
      logLevel: flags.logLevel,
      lxcfs: resolve(flags.lxcfs || process.env.LIDO_LXCFS || "/var/lib/lxcfs"),
      ...(group === undefined ? {} : { group }),
    });
    logFaults(daemon.context.log);
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => void daemon.close());
    process.on("SIGHUP", () => {}); // the daemon outlives its terminal
    await daemon.ended;
  },
})];
