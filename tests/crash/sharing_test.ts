/** Disks of running containers and changes of id maps, interrupted at every point. A container's mounts match the API, and every tree has the
 * owners of the map that is recorded for it. */
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Devices, Instance, StorageVolume } from "../../api/types.ts";
import { succeed } from "../support/command.ts";
import type { Daemon } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { CutOff, Requests, runAll, type Scenario, startDaemon, type State } from "./support.ts";

class Api extends Requests {
  /** Sets the instance's devices to `devices` and its root disk. */
  async setDevices(name: string, devices: Devices): Promise<void> {
    const now = await this.ask("GET", `/instances/${name}`);
    const { root } = now.devices;
    await this.ask("PUT", `/instances/${name}`, { ...now, devices: { root, ...devices } });
  }

  setConfig(name: string, config: Record<string, string>): Promise<void> {
    return this.ask("PATCH", `/instances/${name}`, { config });
  }

  power(name: string, action: string): Promise<void> {
    return this.ask("PUT", `/instances/${name}/state`, { action, force: true });
  }
}

/** Digest of a tree with owners relative to `base`, the first host id of its map. */
function digest(path: string, base: number): string {
  const hash = createHash("sha256");
  const walk = (at: string, name: string) => {
    const info = lstatSync(at);
    hash.update(`${name} ${info.mode} ${info.uid - base} ${info.gid - base}\n`);
    if (info.isDirectory()) { for (const entry of readdirSync(at).sort()) walk(join(at, entry), `${name}/${entry}`); }
  };
  walk(path, "");
  return hash.digest("hex").slice(0, 16);
}

const baseOf = (map: string | undefined): number => JSON.parse(map ?? "[]")[0]?.Hostid ?? 0;

async function state(daemon: Daemon, api: Api): Promise<State> {
  const found: State = {};
  for (const instance of await api.ask("GET", "/instances?recursion=1") as Instance[]) {
    const { name, status, config, devices, expanded_devices: expanded } = instance;
    const pool = join(daemon.directory, "storage-pools", expanded.root!.pool!);
    const kept = Object.entries(config).filter(([key]) => !key.startsWith("volatile."));
    const tree = digest(join(pool, "containers", name, "rootfs"), baseOf(config["volatile.last_state.idmap"]));
    const { pid } = await api.ask("GET", `/instances/${name}/state`);
    const mounts = pid === 0 ? [] : readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n")
      .map((line) => line.split(" ")[4] ?? "").filter((target) => target.startsWith("/mnt")).sort();
    found[name] = JSON.stringify([status, kept, devices, expanded, tree, mounts]);
  }
  for (const profile of await api.ask("GET", "/profiles?recursion=1")) {
    found[`profile ${profile.name}`] = JSON.stringify(profile);
  }
  for (const pool of ["fast", "plain", "slow"]) {
    for (const volume of await api.ask("GET", `/storage-pools/${pool}/volumes/custom?recursion=1`) as StorageVolume[]) {
      const path = join(daemon.directory, "storage-pools", pool, "custom", `default_${volume.name}`);
      found[`${pool}/${volume.name}`] = digest(path, baseOf(volume.config["volatile.idmap.last"]));
    }
  }
  return found;
}

const disk = (pool: string, source: string, path: string) => ({ type: "disk", pool, source, path });

const scenarios: readonly Scenario<Api>[] = [
  ...["fast", "plain"].flatMap((pool): Scenario<Api>[] => [
    {
      name: `attach (${pool})`,
      run: (api) => api.setDevices("c1", { v: disk(pool, "v", "/mnt/v") }),
      reset: (api) => api.setDevices("c1", {}),
    },
    {
      name: `detach (${pool})`,
      run: (api) => api.setDevices(`has-${pool}`, {}),
      reset: (api) => api.setDevices(`has-${pool}`, { v: disk(pool, "held", "/mnt/v") }),
    },
    {
      name: `attach with a change of owners (${pool})`,
      run: (api) => api.setDevices("isolated", { v: disk(pool, "v", "/mnt/v") }),
      reset: async (api) => {
        await api.setDevices("isolated", {});
        await api.setDevices("c1", { v: disk(pool, "v", "/mnt/v") });
        await api.setDevices("c1", {});
      },
    },
  ]),
  {
    name: "one disk for another, with one below that stays",
    run: (api) =>
      api.setDevices("nested", { a: disk("plain", "shifted", "/mnt/a"), b: disk("plain", "shifted", "/mnt/a/b.d") }),
    reset: (api) =>
      api.setDevices("nested", { a: disk("fast", "shifted", "/mnt/a"), b: disk("plain", "shifted", "/mnt/a/b.d") }),
  },
  {
    name: "a profile of two running instances",
    run: async (api) => {
      const edit = () => api.ask("PUT", "/profiles/p1", { devices: { p: disk("plain", "shifted", "/mnt/p") } });
      // The profile is saved even if an instance cannot follow; a second edit brings those instances up to date.
      await edit().catch((error) => {
        if (!String(error).includes("(profile change still saved)")) throw error;
        return edit();
      });
    },
    reset: (api) => api.ask("PUT", "/profiles/p1", { devices: {} }),
  },
  {
    name: "a start with another map, where owners are changed on disk",
    run: (api) => api.power("slow", "start"),
    reset: async (api) => {
      await api.power("slow", "stop");
      await api.setConfig("slow", { "security.idmap.isolated": "false" });
      await api.power("slow", "start");
      await api.power("slow", "stop");
      await api.setConfig("slow", { "security.idmap.isolated": "true" });
    },
  },
];

/** Mounts an overlay, which has no idmapped mounts. @returns A directory in it; disposing unmounts and deletes it. */
async function overlay(): Promise<{ source: string } & AsyncDisposable> {
  const base = mkdtempSync(join(tmpdir(), "lido-overlay-"));
  for (const name of ["fs", "merged"]) mkdirSync(join(base, name));
  // On its own tmpfs: the temporary directory itself may be on an overlay.
  await succeed(["mount", "-t", "tmpfs", "none", join(base, "fs")]);
  for (const name of ["lower", "upper", "work"]) mkdirSync(join(base, "fs", name));
  const [lower, upper, work] = ["lower", "upper", "work"].map((name) => join(base, "fs", name));
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
  await succeed(["mount", "-t", "overlay", "none", "-o", options, join(base, "merged")]);
  mkdirSync(join(base, "merged/pool"));
  return {
    source: join(base, "merged/pool"),
    [Symbol.asyncDispose]: async () => {
      for (const name of ["merged", "fs"]) await succeed(["umount", join(base, name)]);
      rmSync(base, { recursive: true });
    },
  };
}

Deno.test("disks of running containers and changes of maps cut off at every point", async (t) => {
  await using beneath = await overlay();
  await using daemon = await startDaemon();
  const api = new Api(daemon.directory);
  await api.ask("POST", "/images", readFileSync(await busyboxImage()), { "content-type": "application/octet-stream" });
  const [{ fingerprint }] = await api.ask("GET", "/images?recursion=1");
  await api.ask("POST", "/storage-pools", { name: "fast", driver: "btrfs", config: { size: "512MiB" } });
  await api.ask("POST", "/storage-pools", { name: "plain", driver: "dir", config: {} });
  await api.ask("POST", "/storage-pools", { name: "slow", driver: "dir", config: { source: beneath.source } });
  await api.ask("POST", "/profiles", { name: "p1", devices: {} });
  const create = async (name: string, pool: string, more: object = {}) => {
    const devices = { root: { type: "disk", path: "/", pool } };
    await api.ask("POST", "/instances", { name, devices, source: { type: "image", fingerprint }, ...more });
    // Make the mount targets now: an attach would otherwise make them and change the tree.
    const mnt = join(daemon.directory, "storage-pools", pool, "containers", name, "rootfs/mnt");
    for (const target of ["v", "a", "p"]) mkdirSync(join(mnt, target));
    await api.power(name, "start");
  };
  for (const pool of ["fast", "plain"]) {
    for (const name of ["v", "held", "shifted"]) {
      const config: Record<string, string> = name === "shifted" ? { "security.shifted": "true" } : {};
      await api.ask("POST", `/storage-pools/${pool}/volumes/custom`, { name, type: "custom", config });
      const path = join(daemon.directory, "storage-pools", pool, "custom", `default_${name}`);
      for (const file of ["a", "b"]) writeFileSync(join(path, file), file);
      mkdirSync(join(path, "b.d"));
    }
    await create(`has-${pool}`, "fast");
    await api.setDevices(`has-${pool}`, { v: disk(pool, "held", "/mnt/v") });
  }
  await create("c1", "fast", { profiles: ["default", "p1"] });
  await create("nested", "plain", { profiles: ["default", "p1"] });
  await create("isolated", "fast", { config: { "security.idmap.isolated": "true" } });
  for (const pool of ["fast", "plain"]) {
    await api.setDevices("c1", { v: disk(pool, "v", "/mnt/v") });
    await api.setDevices("c1", {});
  }
  for (const source of ["plain", "fast"]) {
    await api.setDevices("nested", { a: disk(source, "shifted", "/mnt/a"), b: disk("plain", "shifted", "/mnt/a/b.d") });
  }
  await create("slow", "slow");
  await api.power("slow", "stop");
  await api.setConfig("slow", { "security.idmap.isolated": "true" });
  await api.ask("PUT", "/profiles/p1", { devices: { p: disk("plain", "shifted", "/mnt/p") } });
  await api.ask("PUT", "/profiles/p1", { devices: {} });
  const cutOff = new CutOff(daemon, api, () => state(daemon, api));
  await cutOff.begin();
  await runAll(t, cutOff, scenarios);
  console.log(`${cutOff.points} points`);
});
