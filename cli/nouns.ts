/** The first word of a command line and the module that holds its verbs. Only that module is loaded. */
import type { Verb } from "./verb.ts";

interface Noun {
  summary: string;
  /** For programs: left out of the help. */
  hidden?: true;
  load(): Promise<{ verbs: readonly Verb[] }>;
}

export const nouns: Readonly<Record<string, Noun>> = {
  admin: { summary: "Set up and look after the daemon", load: () => import("./commands/admin.ts") },
  completion: { summary: "Print a completion script for a shell", load: () => import("./commands/completion.ts") },
  "completion-values": {
    summary: "Complete a command line",
    hidden: true,
    load: () => import("./commands/completion.ts"),
  },
  config: { summary: "Manage instance and server configuration", load: () => import("./commands/config.ts") },
  console: { summary: "Attach to instances' consoles", load: () => import("./commands/console.ts") },
  copy: { summary: "Copy instances", load: () => import("./commands/copy.ts") },
  daemon: { summary: "Run the daemon", load: () => import("./commands/daemon.ts") },
  delete: { summary: "Delete instances and snapshots", load: () => import("./commands/instance.ts") },
  exec: { summary: "Execute commands in instances", load: () => import("./commands/exec.ts") },
  image: { summary: "Manage images", load: () => import("./commands/image.ts") },
  info: { summary: "Show instance or server information", load: () => import("./commands/info.ts") },
  init: { summary: "Create instances from images", load: () => import("./commands/launch.ts") },
  launch: { summary: "Create and start instances from images", load: () => import("./commands/launch.ts") },
  list: { summary: "List instances", load: () => import("./commands/list.ts") },
  monitor: { summary: "Show the daemon's events", load: () => import("./commands/monitor.ts") },
  move: { summary: "Move or rename instances", load: () => import("./commands/copy.ts") },
  operation: { summary: "List, show and cancel background operations", load: () => import("./commands/operation.ts") },
  pause: { summary: "Freeze instances", load: () => import("./commands/instance.ts") },
  profile: { summary: "Manage profiles", load: () => import("./commands/profile.ts") },
  query: { summary: "Send a raw query to the daemon", load: () => import("./commands/query.ts") },
  rename: { summary: "Rename instances and snapshots", load: () => import("./commands/copy.ts") },
  restart: { summary: "Restart instances", load: () => import("./commands/instance.ts") },
  restore: { summary: "Restore instances from snapshots", load: () => import("./commands/copy.ts") },
  shutdown: { summary: "Stop the daemon", load: () => import("./commands/admin.ts") },
  snapshot: { summary: "Create instance snapshots", load: () => import("./commands/copy.ts") },
  start: { summary: "Start instances", load: () => import("./commands/instance.ts") },
  stop: { summary: "Stop instances", load: () => import("./commands/instance.ts") },
  storage: { summary: "Manage storage pools and volumes", load: () => import("./commands/storage.ts") },
  version: { summary: "Show the versions of client and daemon", load: () => import("./commands/version.ts") },
  waitready: { summary: "Wait until the daemon is ready", load: () => import("./commands/admin.ts") },
};

/** Other spellings of a first word. */
export const spellings: Readonly<Record<string, string>> = {
  ls: "list",
  rm: "delete",
  cp: "copy",
  mv: "move",
  freeze: "pause",
};
