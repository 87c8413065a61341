/** Operations on limited volumes of the dir driver, interrupted at every point; needs project quotas of the kernel. */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { mounted, places, reasonAgainst } from "../conformance/places.ts";
import { Api, fill, state, writeLater } from "./storage_api.ts";
import { CutOff, runAll, type Scenario, startDaemon } from "./support.ts";

/** Removes the project id from a tree, as if it was made before the filesystem had quotas. */
function uncount(path: string): void {
  execFileSync("chattr", ["-R", "-P", "-p", "0", path]);
}

const scenarios: readonly Scenario<Api>[] = [
  {
    name: "create with a size",
    run: (api) => api.create("q", "new", { size: "20MiB" }),
    reset: (api) => api.delete("q", "new"),
  },
  {
    name: "grow",
    run: (api) => api.set("q", "work", { size: "80MiB" }),
    reset: (api) => api.set("q", "work", { size: "50MiB" }),
  },
  {
    name: "limit a volume with content that was never counted",
    run: (api) => api.set("q", "old", { size: "80MiB" }),
    reset: async (api) => {
      await api.set("q", "old", { size: "" });
      uncount(api.volumePath("q", "old"));
    },
  },
  {
    name: "restore a limited volume",
    run: (api) => api.restore("q", "s0"),
    reset: (api) => Promise.resolve(writeLater(api.volumePath("q", "work"))),
  },
  {
    name: "copy a limited volume",
    run: (api) => api.create("q", "new", { size: "30MiB" }, { type: "copy", pool: "q", name: "work" }),
    reset: (api) => api.delete("q", "new"),
  },
  {
    name: "delete a limited volume",
    run: (api) => api.delete("q", "gone"),
    reset: (api) => api.create("q", "gone", { size: "30MiB" }, { type: "copy", pool: "q", name: "work" }),
  },
];

for (const place of places.filter(({ name }) => name.includes("project quota"))) {
  const reason = await reasonAgainst(place);
  Deno.test({
    name: `${place.name}: operations on limited volumes cut off at every point${reason ? `: ${reason}` : ""}`,
    ignore: reason !== undefined,
    fn: async (t) => {
      await using filesystem = await mounted(place.filesystem!);
      const source = join(filesystem.directory, "pool");
      mkdirSync(source);
      await using daemon = await startDaemon();
      const api = new Api(daemon.directory);
      await api.createPool("q", "dir", { source });
      for (const name of ["keep", "work"]) {
        await api.create("q", name, { size: "50MiB" });
        fill(api.volumePath("q", name), name);
        await api.ask("POST", `/storage-pools/q/volumes/custom/${name}/snapshots`, { name: "s0" });
        writeLater(api.volumePath("q", name));
      }
      await api.create("q", "old");
      fill(api.volumePath("q", "old"), "old");
      uncount(api.volumePath("q", "old"));
      await api.create("q", "gone", { size: "30MiB" }, { type: "copy", pool: "q", name: "work" });
      const cutOff = new CutOff(daemon, api, () => state(daemon, api));
      await cutOff.begin();
      await runAll(t, cutOff, scenarios);
      console.log(`${cutOff.points} points`);
    },
  });
}
