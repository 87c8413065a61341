import type { Config, Instance, Profile, StorageVolume, StorageVolumeSnapshot } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { addDevice, lazyFlag, removeDevices, thereAre } from "../device_verbs.ts";
import { render } from "../output/render.ts";
import { showBytes } from "../../api/size.ts";
import { shortDate } from "../output/units.ts";
import { type Configurable, settingsOf, settingVerbs } from "../settings.ts";
import { type Io, type Verb, verb } from "../verb.ts";
import { instances } from "./config.ts";
import { profiles } from "./profile.ts";

/** `name`, or `type/name`. */
export function volumeParts(volume: string): { type: string; name: string } {
  const [first = "", ...rest] = volume.split("/");
  const isTyped = rest.length > 0 && ["custom", "container", "image", "virtual-machine"].includes(first);
  return isTyped ? { type: first, name: rest.join("/") } : { type: "custom", name: volume };
}

/** The API path; a snapshot's when `volume` is `name/snapshot`. */
export function volumePath(pool: string, volume: string): string {
  const { type, name } = volumeParts(volume);
  const [owner = "", snapshot] = name.split("/");
  const path = url`/1.0/storage-pools/${pool}/volumes/${type}/${owner}`;
  return snapshot === undefined ? path : `${path}${url`/snapshots/${snapshot}`}`;
}

const volumes: Configurable = {
  words: "storage volume",
  args: ["pool", "volume"],
  noun: "storage volume",
  kind: ([, volume = ""]) => volumeParts(volume).name.includes("/") ? "storageVolumeSnapshot" : "storageVolume",
  // `expires_at` is for snapshots.
  writable: ["config", "description", "expires_at"],
  path: ([pool = "", volume = ""]) => volumePath(pool, volume),
};

/** What each letter of `--columns` shows. */
export const titles: Readonly<Record<string, string>> = {
  c: "CONTENT-TYPE",
  d: "DESCRIPTION",
  e: "PROJECT",
  L: "LOCATION",
  n: "NAME",
  t: "TYPE",
  u: "USED BY",
  U: "USAGE",
};

/** @throws {UsageError} For an unknown letter. */
function columnsOf(text: string, isClustered: boolean): string[] {
  return text.replaceAll(",", "").split("").map((letter) => {
    if (!Object.hasOwn(titles, letter)) {
      const allowed = Object.keys(titles).join(" ");
      throw new UsageError(`Unknown column shorthand char '${letter}' in '${text}': ${allowed} are allowed`);
    }
    return letter;
  }).filter((letter) => isClustered || letter !== "L");
}

async function cellOf(io: Io, pool: string, volume: StorageVolume, letter: string): Promise<string> {
  switch (letter) {
    case "c":
      return volume.content_type;
    case "d":
      return volume.description;
    case "e":
      return volume.project;
    case "n":
      return volume.name;
    case "t":
      return volume.name.includes("/") ? `${volume.type} (snapshot)` : volume.type;
    case "u":
      return String(volume.used_by.length);
    default: {
      if (volume.name.includes("/")) return "";
      const state = await io.client.get<{ usage: { used: number } | null }>(
        `${volumePath(pool, `${volume.type}/${volume.name}`)}/state`,
      ).catch(() => undefined);
      return state?.usage ? showBytes(state.usage.used) : "";
    }
  }
}

/** Filters are `key=value` for fields and settings, or the beginning of a name. */
function matches(volume: StorageVolume, filters: readonly string[]): boolean {
  return filters.every((filter) => {
    const [, key, value] = /^([\w.-]+)=(.*)$/.exec(filter) ?? [];
    if (key === undefined) return volume.name.startsWith(filter);
    const fields = volume as unknown as Record<string, unknown>;
    return String(fields[key] ?? volume.config[key] ?? "") === value;
  });
}

interface Attachment {
  readonly device: string;
  readonly path: string | undefined;
}

/** As in lxc: one more word is the path, and the device has the volume's name; two are device and path. */
function attachmentOf(volume: string, rest: readonly string[]): Attachment {
  if (rest.length === 0) return { device: volume, path: undefined };
  if (rest.length === 1) {
    return rest[0]!.startsWith("/") ? { device: volume, path: rest[0] } : { device: rest[0]!, path: undefined };
  }
  return { device: rest[0]!, path: rest[1] };
}

async function attach(io: Io, owner: Configurable, words: readonly string[]): Promise<void> {
  const [pool = "", volume = "", target = "", ...rest] = words;
  const { type, name } = volumeParts(volume);
  if (type !== "custom") throw new UsageError('Only "custom" volumes can be attached to instances');
  const { device, path } = attachmentOf(name, rest);
  const { content_type: content } = await io.client.get<StorageVolume>(volumePath(pool, name));
  if (content === "filesystem" && path === undefined) {
    throw new UsageError("Missing path: where the volume is to be mounted, as in /mnt");
  }
  const config: Config = { type: "disk", pool, source: name, ...(path === undefined ? {} : { path }) };
  await addDevice(io, owner, [target], device, config, `Device already exists: ${device}`);
}

async function detach(
  io: Io,
  owner: Configurable,
  words: readonly string[],
  flags: { readonly lazy: boolean },
): Promise<void> {
  const [pool = "", volume = "", target = "", device] = words;
  const { name } = volumeParts(volume);
  const { devices } = await io.client.get<Instance | Profile>(owner.path([target]));
  const isIt = ([, one]: [string, Config]) => one.type === "disk" && one.pool === pool && one.source === name;
  const found = Object.entries(devices).filter(isIt).map(([key]) => key);
  if (device !== undefined) {
    if (!devices[device]) {
      const names = thereAre(Object.keys(devices));
      throw new UsageError(`The specified device doesn't exist: ${JSON.stringify(device)}: ${names}`);
    }
    if (!found.includes(device)) throw new UsageError(`Device "${device}" is not volume "${name}" of pool "${pool}"`);
    return await removeDevices(io, owner, [target], [device], flags);
  }
  if (found.length === 0) {
    throw new UsageError(
      `No device found for this storage volume: "${target}" has no disk of "${name}" in pool "${pool}"`,
    );
  }
  if (found.length > 1) {
    throw new UsageError(`More than one device matches, specify the device name: ${found.join(", ")}`);
  }
  await removeDevices(io, owner, [target], found, flags);
}

const args = {
  attach: ["pool", "volume", "instance", "device?", "path?"],
  detach: ["pool", "volume", "instance", "device?"],
};
const ofProfile = (names: readonly string[]) => names.map((name) => name === "instance" ? "profile" : name);

export const verbs: Verb[] = [
  ...settingVerbs(volumes),
  verb({
    words: "storage volume create",
    args: ["pool", "volume", "key=value..."],
    flags: {
      type: { value: "type", values: ["filesystem"], initial: "filesystem", summary: "Content type, filesystem" },
    },
    summary: "Create a custom storage volume",
    async run(io, [pool = "", name = "", ...settings], flags) {
      const body = { name, type: "custom", content_type: flags.type, config: settingsOf(settings) };
      await io.client.change("POST", url`/1.0/storage-pools/${pool}/volumes/custom`, body);
      if (!io.quiet) io.out(`Storage volume ${name} created\n`);
    },
  }),
  verb({
    words: "storage volume list",
    aliases: ["storage volume ls"],
    args: ["pool", "filter..."],
    flags: {
      format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" },
      columns: { short: "c", value: "columns", initial: "etndcuL", summary: "Columns" },
    },
    summary: "List the volumes of a storage pool",
    details: `Columns:
  c Content type   d Description   e Project   n Name
  t Type           u Used by       U Usage on disk
`,
    async run(io, [pool = "", ...filters], flags) {
      const all = await io.client.get<StorageVolume[]>(`${url`/1.0/storage-pools/${pool}/volumes`}?recursion=1`);
      const raw = all.filter((volume) => matches(volume, filters));
      raw.sort((left, right) => left.type + left.name < right.type + right.name ? -1 : 1);
      // The project is left out by default: there is only one.
      const columns = columnsOf(flags.columns === "etndcuL" ? "tndcu" : flags.columns, false);
      const rows = await Promise.all(
        raw.map((volume) => Promise.all(columns.map((letter) => cellOf(io, pool, volume, letter)))),
      );
      const headers = columns.map((letter) => titles[letter]!);
      io.out(await render(flags.format, { headers, rows, raw, kind: "storageVolume" }));
    },
  }),
  verb({
    words: "storage volume info",
    args: ["pool", "volume"],
    flags: {},
    summary: "Show the state of a storage volume",
    async run(io, [pool = "", volume = ""]) {
      const path = volumePath(pool, volume);
      const found = await io.client.get<StorageVolume>(path);
      type State = { usage: { used: number; total: number; estimated?: boolean } | null };
      const { usage } = await io.client.get<State>(`${path}/state`);
      const snapshots = await io.client.get<StorageVolumeSnapshot[]>(`${path}/snapshots?recursion=1`);
      const lines = [
        `Name: ${found.name}`,
        ...(found.description ? [`Description: ${found.description}`] : []),
        `Type: ${found.type}`,
        `Content type: ${found.content_type}`,
        ...(usage ? [`Usage: ${showBytes(usage.used)}${usage.estimated ? " (by a walk of its files)" : ""}`] : []),
        ...(usage && usage.total > 0 ? [`Total: ${showBytes(usage.total)}`] : []),
      ];
      if (snapshots.length > 0) {
        const { fittedTable } = await import("../output/render.ts");
        const rows = snapshots.map((one) => [one.name, one.description, shortDate(one.expires_at)]);
        lines.push("", "Snapshots:", (await fittedTable(["NAME", "DESCRIPTION", "EXPIRES AT"], rows)).trimEnd());
      }
      io.out(`${lines.join("\n")}\n`);
    },
  }),
  verb({
    words: "storage volume delete",
    aliases: ["storage volume rm"],
    args: ["pool", "volume"],
    flags: {},
    summary: "Delete a storage volume, or a snapshot of one",
    async run(io, [pool = "", volume = ""]) {
      await io.client.change("DELETE", volumePath(pool, volume));
      if (!io.quiet) io.out(`Storage volume ${volume} deleted\n`);
    },
  }),
  verb({
    words: "storage volume rename",
    args: ["pool", "volume", "new name"],
    flags: {},
    summary: "Rename a storage volume, or a snapshot of one",
    async run(io, [pool = "", volume = "", to = ""]) {
      // The new name of a snapshot may include its volume, as the old one does.
      const name = volume.includes("/") ? to.split("/").at(-1)! : to;
      await io.client.change("POST", volumePath(pool, volume), { name });
      if (!io.quiet) io.out(`Renamed storage volume from "${volume}" to "${to}"\n`);
    },
  }),
  verb({
    words: "storage volume attach",
    args: args.attach,
    flags: {},
    summary: "Attach a storage volume to an instance",
    details: `The device gets the volume's name unless another is given before the path.
Example: lido storage volume attach fast data c1 /mnt/data
`,
    run: (io, words) => attach(io, instances, words),
  }),
  verb({
    words: "storage volume attach-profile",
    args: ofProfile(args.attach),
    flags: {},
    summary: "Attach a storage volume to a profile",
    run: (io, words) => attach(io, profiles, words),
  }),
  verb({
    words: "storage volume detach",
    args: args.detach,
    flags: lazyFlag,
    summary: "Detach a storage volume from an instance",
    run: (io, words, flags) => detach(io, instances, words, flags),
  }),
  verb({
    words: "storage volume detach-profile",
    args: ofProfile(args.detach),
    flags: lazyFlag,
    summary: "Detach a storage volume from a profile",
    run: (io, words, flags) => detach(io, profiles, words, flags),
  }),
];
