import type { CheckProblem } from "../../api/types.ts";
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
    details: `Storage pools that no running container uses are unmounted, and ZFS pools exported unless zfs.export is
false. A daemon that is ended by a signal leaves all pools as they are.
`,
    async run(io, _args, flags) {
      await (await import("./admin/daemon.ts")).shutDown(io, flags.timeout);
    },
  }),
  verb({
    words: "admin check",
    args: [],
    flags: {
      repair: { summary: "Mend what can be mended without losing data" },
      format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" },
    },
    summary: "Compare the daemon's database with what is on the host",
    details: `The exit code is 1 when something is wrong and was not repaired.
`,
    async run(io, _args, flags) {
      const { render } = await import("../output/render.ts");
      const { metadata } = await io.client.request("POST", "/1.0/check", { repair: flags.repair });
      const raw = metadata as CheckProblem[];
      if (raw.length > 0 || flags.format !== "table") {
        const rows = raw.map((
          one,
        ) => [one.subject, one.problem, one.repaired ? "DONE" : one.can_repair ? "YES" : "NO"]);
        io.out(
          await render(flags.format, { headers: ["SUBJECT", "PROBLEM", "REPAIR"], rows, raw, kind: "checkProblem" }),
        );
      }
      if (raw.some(({ repaired }) => !repaired)) return 1;
      if (raw.length === 0 && !io.quiet && flags.format === "table") io.out("Nothing is wrong\n");
    },
  }),
  verb({
    words: "admin recover",
    args: [],
    flags: {
      yes: { short: "y", summary: "Ask nothing: recover all that is found" },
      pool: { value: "pool", many: true, summary: "A pool that is not known: name=driver[,source=...][,key=value...]" },
      preseed: { summary: "Read the pools as YAML from stdin, as for admin init (storage_pools); asks nothing" },
      force: { summary: "Recover also what was being deleted or renamed when the daemon was cut off" },
      dropImages: { summary: "Delete unpacked copies of images that are not known" },
    },
    summary: "Make pools, instances and volumes known again that are on disk and not in the database",
    details:
      `Pools in the daemon's own directories, and those it has had before, are found by themselves. Known pools are looked
through too. Recovering again finds nothing; what is in the database is never changed. The exit code is 1 when
something that was found could not be recovered.

Examples:
  lido admin recover
  lido admin recover --yes
  lido admin recover --yes --pool old=dir,source=/mnt/old/storage-pools/default
`,
    async run(io, _args, flags) {
      return await (await import("./admin/recover.ts")).recover(io, flags);
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
