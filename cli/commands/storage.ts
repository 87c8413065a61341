import type { ResourcesStoragePool, StoragePool, StoragePoolHealth } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { render } from "../output/render.ts";
import { showBytes } from "../../api/size.ts";
import { type Configurable, settingsOf, settingVerbs } from "../settings.ts";
import { type Io, type Verb, verb } from "../verb.ts";
import { verbs as fileVerbs } from "./storage_file.ts";
import { verbs as snapshotVerbs } from "./storage_snapshot.ts";
import { verbs as volumeVerbs } from "./storage_volume.ts";

const pools: Configurable = {
  words: "storage",
  args: ["pool"],
  noun: "storage pool",
  kind: "storagePool",
  writable: ["config", "description"],
  // `info` shows these.
  hidden: ["reason", "facets", "absent", "idmapped_mounts"],
  path: ([name = ""]) => url`/1.0/storage-pools/${name}`,
};

/** Groups the users of a pool for `storage info`. */
function usersByKind(users: readonly string[]): Record<string, string[]> {
  const groups: Record<string, string[]> = {};
  for (const user of users) {
    const parts = user.replace(/\?.*/, "").split("/").slice(2).map(decodeURIComponent);
    const kind = parts[0] === "storage-pools" ? "volumes" : parts[0] ?? "";
    (groups[kind] ??= []).push(parts.at(-1) ?? "");
  }
  return groups;
}

function amounts({ space, inodes }: ResourcesStoragePool, inBytes: boolean): Record<string, unknown> {
  const size = (bytes: number) => inBytes ? `${bytes}` : showBytes(bytes);
  return {
    "space used": size(space.used),
    "total space": size(space.total),
    ...(inodes.total > 0 ? { "inodes used": inodes.used, "total inodes": inodes.total } : {}),
  };
}

async function healthOf(io: Io, pool: string): Promise<string> {
  const { ok, text } = await io.client.get<StoragePoolHealth>(`${pools.path([pool])}/health`);
  return ok ? text : `bad: ${text}`;
}

/** Each facet with "available", or the reason for its absence. */
function facetsOf({ facets, absent }: StoragePool): Record<string, string> {
  const all = [...facets.map((name) => [name, "available"]), ...Object.entries(absent)];
  return Object.fromEntries(all.sort(([left], [right]) => left! < right! ? -1 : 1));
}

export const verbs: Verb[] = [
  ...settingVerbs(pools).filter(({ words }) => words !== "storage show"),
  ...volumeVerbs,
  ...snapshotVerbs,
  ...fileVerbs,
  verb({
    words: "storage create",
    args: ["pool", "driver", "key=value..."],
    flags: {},
    summary: "Create a storage pool",
    details: `Examples:
  lido storage create fast btrfs size=20GiB        on a loop file
  lido storage create disk btrfs source=/dev/sdb   on a block device
  lido storage create plain dir
`,
    async run(io, [name = "", driver = "", ...settings]) {
      await io.client.change("POST", "/1.0/storage-pools", { name, driver, config: settingsOf(settings) });
      if (!io.quiet) io.out(`Storage pool ${name} created\n`);
    },
  }),
  verb({
    words: "storage list",
    aliases: ["storage ls"],
    args: [],
    flags: { format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" } },
    summary: "List storage pools",
    async run(io, _args, flags) {
      const raw = await io.client.get<StoragePool[]>("/1.0/storage-pools?recursion=1");
      io.out(
        await render(flags.format, {
          headers: ["NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"],
          rows: raw.map((pool) => [
            pool.name,
            pool.driver,
            pool.config.source ?? "",
            pool.description,
            String(pool.used_by.length),
            pool.status.toUpperCase(),
          ]),
          raw,
          kind: "storagePool",
        }),
      );
    },
  }),
  verb({
    words: "storage show",
    args: ["pool"],
    flags: { resources: { summary: "Show the resources available to the storage pool" } },
    summary: "Show the configuration of a storage pool, or its resources",
    async run(io, [name = ""], flags) {
      if (flags.resources) {
        const { yaml } = await import("../output/yaml.ts");
        io.out(yaml(await io.client.get<object>(`${pools.path([name])}/resources`)));
        return;
      }
      const [show] = settingVerbs(pools);
      return await show!.run(io, [name], {});
    },
  }),
  verb({
    words: "storage info",
    args: ["pool"],
    flags: { bytes: { summary: "Show the used and free space in bytes" } },
    summary: "Show useful information about a storage pool",
    async run(io, [name = ""], flags) {
      const pool = await io.client.get<StoragePool>(pools.path([name]));
      const isOpen = pool.status === "Created";
      const resources = isOpen && await io.client.get<ResourcesStoragePool>(`${pools.path([name])}/resources`);
      const { yaml } = await import("../output/yaml.ts");
      const text = yaml({
        info: {
          description: pool.description,
          driver: pool.driver,
          name: pool.name,
          ...(resources ? amounts(resources, flags.bytes) : {}),
          ...(isOpen ? {} : { status: pool.status, reason: pool.reason }),
          ...(pool.facets.includes("health") ? { health: await healthOf(io, name) } : {}),
          ...(isOpen ? { "idmapped mounts": pool.idmapped_mounts } : {}),
        },
        ...(isOpen ? { facets: facetsOf(pool) } : {}),
        "used by": usersByKind(pool.used_by),
      });
      // lxc prints sizes in bytes as strings.
      io.out(flags.bytes ? text.replace(/((?:space used|total space): )"?(\d+)"?/g, '$1"$2"') : text);
    },
  }),
  verb({
    words: "storage delete",
    aliases: ["storage rm"],
    args: ["pool"],
    flags: {},
    summary: "Delete a storage pool",
    async run(io, [name = ""]) {
      if (name === "") throw new UsageError("Missing pool name");
      await io.client.change("DELETE", pools.path([name]));
      if (!io.quiet) io.out(`Storage pool ${name} deleted\n`);
    },
  }),
];
