import type { Config, Devices, Profile, Server, StoragePool } from "../../../api/types.ts";
import { url } from "../../client/client.ts";
import { UsageError } from "../../client/errors.ts";
import type { Io } from "../../verb.ts";
import type { HostDrivers, PoolAnswers } from "./questions.ts";

interface InitFlags {
  minimal: boolean;
  auto: boolean;
  preseed: boolean;
  dump: boolean;
  storageBackend: string | undefined;
  storageCreateDevice: string | undefined;
  storageCreateLoop: string | undefined;
  storagePool: string | undefined;
}

/** The wanted settings; LXD's preseed format. */
interface Preseed {
  config?: Config;
  storage_pools?: { name: string; driver: string; description?: string; config?: Config }[];
  profiles?: { name: string; description?: string; config?: Config; devices?: Devices }[];
}

/** The best driver first. */
export const backends = ["zfs", "btrfs", "lvm", "dir"] as const;
/** lvm is offered but never chosen by default: its pools have a fixed size. */
const preferred = ["zfs", "btrfs", "dir"];

/** @throws {UsageError} For flags that exclude each other. */
export async function init(io: Io, flags: InitFlags): Promise<void> {
  checkFlags(flags);
  if (flags.dump) return await dump(io);
  if (flags.preseed) return await apply(io, await readPreseed());
  const server = await io.client.get<Server>("/1.0");
  const host = hostDrivers(server);
  if (flags.minimal || flags.auto) return await apply(io, await unattended(io, flags, host));
  const { ask } = await import("./questions.ts");
  const { Prompter } = await import("./prompter.ts");
  const prompter = new Prompter(io);
  const pools = await io.client.get<StoragePool[]>("/1.0/storage-pools?recursion=1");
  const answers = await ask(prompter, host, pools.map(({ name }) => name));
  const settings = answers.pool === undefined ? {} : await withRoot(io, answers.pool);
  if (answers.print) await printYaml(io, settings);
  await apply(io, settings);
}

function checkFlags(flags: InitFlags): void {
  const modes = (["minimal", "auto", "preseed", "dump"] as const).filter((name) => flags[name]);
  if (modes.length > 1) throw new UsageError(`Can't use --${modes[0]} and --${modes[1]} together`);
  const details = [flags.storageBackend, flags.storageCreateDevice, flags.storageCreateLoop, flags.storagePool];
  if (!flags.auto && details.some((value) => value !== undefined)) {
    throw new UsageError("Storage flags are only allowed with --auto");
  }
  if (flags.storageCreateDevice !== undefined && flags.storageCreateLoop !== undefined) {
    throw new UsageError("Only one of --storage-create-device or --storage-create-loop can be specified");
  }
  if (flags.storageBackend === "dir" && details.slice(1).some((value) => value !== undefined)) {
    throw new UsageError(
      "None of --storage-pool, --storage-create-device or --storage-create-loop may be used with the 'dir' backend",
    );
  }
  if (flags.storageCreateLoop !== undefined && !/^[1-9]\d{0,6}$/.test(flags.storageCreateLoop)) {
    throw new UsageError(`Invalid size "${flags.storageCreateLoop}": must be a number of GiB`);
  }
}

function hostDrivers({ environment }: Server): HostDrivers {
  const available = backends.filter((name) => environment.storage_supported_drivers.some(({ Name }) => Name === name));
  return {
    available,
    best: preferred.find((name) => available.includes(name as typeof backends[number])) ?? "dir",
    missing: new Map(environment.storage_missing_drivers.map(({ Name, Reason }) => [Name, Reason])),
  };
}

/** A daemon that has a pool keeps it: a second run changes nothing. */
async function unattended(io: Io, flags: InitFlags, { available, best, missing }: HostDrivers): Promise<Preseed> {
  const driver = flags.storageBackend ?? best;
  if (!(backends as readonly string[]).includes(driver)) {
    throw new UsageError(`The requested backend '${driver}' isn't supported by lido init: ${backends.join(", ")} are`);
  }
  if (!available.includes(driver)) {
    throw new UsageError(
      `The requested backend '${driver}' isn't available on your system: ${missing.get(driver)}; ${
        available.join(", ")
      } ${available.length === 1 ? "is" : "are"}`,
    );
  }
  const pools = await io.client.get<StoragePool[]>("/1.0/storage-pools?recursion=1");
  if (pools.length > 0) return await withRoot(io, undefined, pools[0]!.name);
  const config: Config = {
    ...(flags.storageCreateLoop === undefined ? {} : { size: `${flags.storageCreateLoop}GiB` }),
    ...(flags.storageCreateDevice === undefined ? {} : { source: flags.storageCreateDevice }),
    ...(flags.storagePool === undefined ? {} : poolSource(driver, flags)),
  };
  return await withRoot(io, { name: "default", driver, config });
}

function poolSource(driver: string, flags: InitFlags): Config {
  const key = { zfs: "zfs.pool_name", lvm: "lvm.vg_name" }[driver];
  const name = flags.storagePool!;
  return key !== undefined && (flags.storageCreateDevice ?? flags.storageCreateLoop) !== undefined
    ? { [key]: name }
    : { source: name };
}

/** Adds a root disk on the pool to the default profile, unless it has one. */
async function withRoot(io: Io, pool: PoolAnswers | undefined, existing?: string): Promise<Preseed> {
  const profile = await io.client.get<Profile>("/1.0/profiles/default");
  const hasRoot = Object.values(profile.devices).some((device) => device.type === "disk" && device.path === "/");
  const name = pool?.name ?? existing!;
  return {
    ...(pool ? { storage_pools: [pool] } : {}),
    ...(hasRoot ? {} : { profiles: [{ name: "default", devices: { root: { type: "disk", path: "/", pool: name } } }] }),
  };
}

/** Makes what is missing and changes what exists. When a later part fails, new pools and profiles are deleted again. */
async function apply({ client }: Io, settings: Preseed): Promise<void> {
  const made: string[] = [];
  try {
    if (settings.config) await client.change("PATCH", "/1.0", { config: settings.config });
    const pools = await client.get<StoragePool[]>("/1.0/storage-pools?recursion=1");
    for (const pool of settings.storage_pools ?? []) {
      const existing = pools.find(({ name }) => name === pool.name);
      if (!existing) {
        await client.change("POST", "/1.0/storage-pools", pool);
        made.push(url`/1.0/storage-pools/${pool.name}`);
      } else if (existing.driver !== pool.driver) {
        throw new UsageError(`Storage pool "${pool.name}" is of type "${existing.driver}" instead of "${pool.driver}"`);
      } else {
        const { description = existing.description, config = {} } = pool;
        await client.change("PATCH", url`/1.0/storage-pools/${pool.name}`, { description, config });
      }
    }
    const profiles = await client.get<Profile[]>("/1.0/profiles?recursion=1");
    for (const profile of settings.profiles ?? []) {
      const existing = profiles.find(({ name }) => name === profile.name);
      if (existing) {
        await client.change("PUT", url`/1.0/profiles/${profile.name}`, {
          description: profile.description ?? existing.description,
          config: { ...existing.config, ...profile.config },
          devices: { ...existing.devices, ...profile.devices },
        });
      } else {
        await client.change("POST", "/1.0/profiles", profile);
        made.push(url`/1.0/profiles/${profile.name}`);
      }
    }
  } catch (error) {
    for (const path of made.reverse()) await client.change("DELETE", path).catch(() => {});
    throw error;
  }
}

async function dump(io: Io): Promise<void> {
  const pools = await io.client.get<StoragePool[]>("/1.0/storage-pools?recursion=1");
  const profiles = await io.client.get<Profile[]>("/1.0/profiles?recursion=1");
  const server = await io.client.get<Server>("/1.0");
  await printYaml(io, {
    config: server.config as Config,
    storage_pools: pools.map(({ name, driver, description, config }) => ({
      name,
      driver,
      description,
      config: portable(name, config),
    })),
    profiles: profiles.map(({ name, description, config, devices }) => ({ name, description, config, devices })),
  });
}

/** A pool's settings without those of this host: sources that the daemon chose itself are left out, and another daemon will choose its own.
 * A source that a user named stays, for the reader to check. */
function portable(name: string, config: Config): Config {
  const own = [`/storage-pools/${name}`, `/disks/${name}.img`];
  return Object.fromEntries(
    Object.entries(config).filter(([key, value]) =>
      !key.startsWith("volatile.") && !(key === "source" && own.some((place) => value.endsWith(place)))
    ),
  );
}

async function printYaml(io: Io, value: object): Promise<void> {
  const { stringify } = await import("yaml");
  io.out(stringify(value, { aliasDuplicateObjects: false }));
}

export async function readPreseed(): Promise<Preseed> {
  const { readText } = await import("../../exec/descriptors.ts");
  const text = await readText();
  const known = ["config", "storage_pools", "profiles"];
  const { yamlMap } = await import("../../yaml_input.ts");
  const value = await yamlMap(text, "Failed to parse the preseed");
  for (const [key, part] of Object.entries(value)) {
    // LXD's own files name networks and projects; empty ones are ignored.
    const isEmpty = part === null || (Array.isArray(part) && part.length === 0);
    if (!known.includes(key) && !isEmpty) {
      throw new UsageError(`Invalid key "${key}" in the preseed: ${known.join(", ")} are allowed`);
    }
  }
  return Object.fromEntries(Object.entries(value).filter(([, part]) => part !== null)) as Preseed;
}
