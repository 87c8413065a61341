import { verb } from "../verb.ts";

export const verbs = [
  verb({
    words: "waitready",
    args: [],
    flags: { timeout: { short: "t", value: "seconds", initial: "0", summary: "How long to wait; 0 is without end" } },
    summary: "Wait until the daemon is ready",
    async run(io, _args, flags) {
      await (await import("./admin/daemon.ts")).waitReady(io, flags.timeout);
    },
  }),
  verb({
    words: "shutdown",
    args: [],
    flags: { timeout: { short: "t", value: "seconds", initial: "60", summary: "How long to wait; 0 is without end" } },
    summary: "End the daemon; containers go on",
    async run(io, _args, flags) {
      await (await import("./admin/daemon.ts")).shutDown(io, flags.timeout);
    },
  }),
  verb({
    words: "admin init",
    args: [],
    flags: {
      minimal: { summary: "Make a pool with the defaults and ask nothing" },
      auto: { summary: "Ask nothing; take what the other flags say" },
      preseed: { summary: "Read the settings as YAML from stdin" },
      dump: { summary: "Print the present settings as YAML for --preseed" },
      storageBackend: { value: "driver", summary: "Driver of the pool; the best that this host has when absent" },
      storageCreateDevice: { value: "device", summary: "Make the pool on this block device" },
      storageCreateLoop: { value: "GiB", summary: "Make the pool on a loop file of this size" },
      storagePool: { value: "name", summary: "Existing pool or dataset to take, or the name of what is made" },
    },
    summary: "Set the daemon up: its first storage pool and the default profile",
    async run(io, _args, flags) {
      await (await import("./admin/init.ts")).init(io, flags);
    },
  }),
];
