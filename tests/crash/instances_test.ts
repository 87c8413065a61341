/** Operations on instances and images, interrupted at every point. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Instance } from "../../api/types.ts";
import { type Daemon, fastPoolRequest } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { withContent, withContents } from "../support/volume_content.ts";
import { CutOff, digest, isFastAlone, Requests, runAll, type Scenario, startDaemon, type State } from "./support.ts";

class Api extends Requests {
  image = new Uint8Array();

  import() {
    return this.ask("POST", "/images", this.image, { "content-type": "application/octet-stream" });
  }

  create(pool: string, name: string) {
    const devices = { root: { type: "disk", path: "/", pool } };
    return this.ask("POST", "/instances", { name, devices, source: { type: "image", alias: "bb" } });
  }

  copy(from: string, pool: string, name: string) {
    const devices = { root: { type: "disk", path: "/", pool } };
    return this.ask("POST", "/instances", { name, devices, source: { type: "copy", source: from } });
  }

  /** Makes a pool that holds an unpacked image and nothing else. */
  async makeCached(pool: string): Promise<void> {
    const { driver, config } = pool === "fast" ? fastPoolRequest() : { driver: "dir", config: {} };
    await this.ask("POST", "/storage-pools", { name: `cached-${pool}`, driver, config });
    await this.create(`cached-${pool}`, "passing");
    await this.delete("passing");
  }

  delete(name: string) {
    return this.ask("DELETE", `/instances/${name}`);
  }

  rename(name: string, to: string) {
    return this.ask("POST", `/instances/${name}`, { name: to });
  }

  snapshot(name: string, snapshot: string) {
    return this.ask("POST", `/instances/${name}/snapshots`, { name: snapshot });
  }

  deleteSnapshot(name: string, snapshot: string) {
    return this.ask("DELETE", `/instances/${name}/snapshots/${snapshot}`);
  }

  power(name: string, action: string) {
    return this.ask("PUT", `/instances/${name}/state`, { action, force: true });
  }
}

async function state(daemon: Daemon, api: Api): Promise<State> {
  const found: State = {};
  for (const image of await api.ask("GET", "/images?recursion=1")) found[`image ${image.fingerprint}`] = image.size;
  for (const instance of await api.ask("GET", "/instances?recursion=1") as Instance[]) {
    const { name, status, config, devices } = instance;
    const kept = Object.entries(config).filter(([key]) => !key.startsWith("volatile."));
    const pool = await api.ask("GET", `/storage-pools/${instance.expanded_devices.root!.pool}`);
    const snapshots = await api.ask("GET", `/instances/${name}/snapshots?recursion=1`) as { name: string }[];
    const volumes = [{}, ...snapshots.map((one) => ({ snapshot: one.name }))].map((one) => ({
      type: "containers",
      name,
      ...one,
    }));
    await withContents(daemon.directory, pool, volumes, (paths) => {
      const [own, ...others] = paths.map((path) => digest(join(path, "rootfs")));
      found[name] = JSON.stringify([status, kept, devices, own]);
      for (const [index, tree] of others.entries()) found[`${name}/${snapshots[index]!.name}`] = tree;
    });
  }
  for (const pool of await api.ask("GET", "/storage-pools?recursion=1")) {
    // An image is unpacked on a pool when it is first needed, and may stay there.
    const used = (pool.used_by as string[]).filter((url) => !url.startsWith("/1.0/images/"));
    found[`pool ${pool.name}`] = JSON.stringify(used.sort());
  }
  return found;
}

async function writeLater(api: Api, name: string): Promise<void> {
  const pool = await api.ask("GET", `/storage-pools/${name}`);
  const write = (path: string) => writeFileSync(join(path, "rootfs/root/later"), "after the snapshot");
  await withContent(api.directory, pool, { type: "containers", name: `spare-${name}` }, write, true);
}

const scenarios: readonly Scenario<Api>[] = (isFastAlone ? ["fast"] : ["fast", "plain"]).flatMap((
  pool,
): Scenario<Api>[] => [
  { name: `create (${pool})`, run: (api) => api.create(pool, "new"), reset: (api) => api.delete("new") },
  {
    name: `delete, with a snapshot (${pool})`,
    run: (api) => api.delete(`gone-${pool}`),
    reset: (api) => api.copy(`keep-${pool}`, pool, `gone-${pool}`),
  },
  {
    name: `copy, with a snapshot (${pool})`,
    run: (api) => api.copy(`keep-${pool}`, pool, "new"),
    reset: (api) => api.delete("new"),
  },
  {
    name: `copy to another driver, with a snapshot (${pool})`,
    run: (api) => api.copy(`keep-${pool}`, pool === "fast" ? "plain" : "fast", "new"),
    reset: (api) => api.delete("new"),
  },
  {
    name: `rename (${pool})`,
    run: (api) => api.rename(`keep-${pool}`, "other"),
    reset: (api) => api.rename("other", `keep-${pool}`),
  },
  {
    name: `snapshot (${pool})`,
    run: (api) => api.snapshot(`keep-${pool}`, "s1"),
    reset: (api) => api.deleteSnapshot(`keep-${pool}`, "s1"),
  },
  {
    name: `restore, settings too (${pool})`,
    run: (api) => api.ask("PUT", `/instances/spare-${pool}`, { restore: "s0" }),
    reset: async (api) => {
      await writeLater(api, pool);
      await api.ask("PATCH", `/instances/spare-${pool}`, { config: { "user.note": "later" } });
    },
  },
  {
    name: `delete a snapshot (${pool})`,
    run: (api) => api.deleteSnapshot(`keep-${pool}`, "s0"),
    reset: (api) => api.snapshot(`keep-${pool}`, "s0"),
  },
  {
    name: `start (${pool})`,
    run: (api) => api.power(`spare-${pool}`, "start"),
    reset: (api) => api.power(`spare-${pool}`, "stop"),
  },
  {
    name: `delete a pool that an image was unpacked on (${pool})`,
    run: (api) => api.ask("DELETE", `/storage-pools/cached-${pool}`),
    reset: (api) => api.makeCached(pool),
  },
]);

Deno.test("operations on instances cut off at every point", async (t) => {
  await using daemon = await startDaemon();
  const api = new Api(daemon.directory);
  api.image = readFileSync(await busyboxImage());
  await api.import();
  const [{ fingerprint }] = await api.ask("GET", "/images?recursion=1");
  await api.ask("POST", "/images/aliases", { name: "bb", target: fingerprint });
  await api.ask("POST", "/storage-pools", { name: "fast", ...fastPoolRequest() });
  await api.ask("POST", "/storage-pools", { name: "plain", driver: "dir", config: {} });
  for (const pool of ["fast", "plain"]) {
    await api.create(pool, `keep-${pool}`);
    await api.snapshot(`keep-${pool}`, "s0");
    await api.copy(`keep-${pool}`, pool, `gone-${pool}`);
    await api.copy(`keep-${pool}`, pool, `spare-${pool}`);
    await api.deleteSnapshot(`spare-${pool}`, "s0");
    // Start it once, so that the files that a first start writes exist before the test.
    await api.power(`spare-${pool}`, "start");
    await api.power(`spare-${pool}`, "stop");
    await api.snapshot(`spare-${pool}`, "s0");
    await writeLater(api, pool);
    await api.ask("PATCH", `/instances/spare-${pool}`, { config: { "user.note": "later" } });
  }
  for (const pool of isFastAlone ? ["fast"] : ["fast", "plain"]) await api.makeCached(pool);
  const cutOff = new CutOff(daemon, api, () => state(daemon, api));
  await cutOff.begin();
  await runAll(t, cutOff, scenarios);
  console.log(`${cutOff.points} points`);
});
