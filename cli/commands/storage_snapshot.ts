import type { StorageVolume } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { changeWithProgress } from "../output/progress.ts";
import { type Io, type Verb, verb } from "../verb.ts";
import { volumeParts, volumePath } from "./storage_volume.ts";

/** `pool/volume` or `pool/volume/snapshot`. @throws {UsageError} */
function placeOf(text: string): { pool: string; volume: string } {
  const slash = text.indexOf("/");
  if (slash <= 0 || slash === text.length - 1) {
    throw new UsageError(`Invalid volume "${text}": as POOL/VOLUME it is allowed`);
  }
  return { pool: text.slice(0, slash), volume: text.slice(slash + 1) };
}

async function copy(
  io: Io,
  from: { pool: string; volume: string },
  to: { pool: string; volume: string },
  options: { volumeOnly: boolean; refresh: boolean },
): Promise<void> {
  const source = await io.client.get<StorageVolume>(volumePath(from.pool, from.volume));
  await changeWithProgress(io, "POST", url`/1.0/storage-pools/${to.pool}/volumes/custom`, {
    name: to.volume,
    type: "custom",
    content_type: source.content_type,
    description: source.description,
    config: source.config,
    source: {
      type: "copy",
      name: from.volume,
      pool: from.pool,
      volume_only: options.volumeOnly,
      refresh: options.refresh,
    },
  });
}

export const verbs: Verb[] = [
  verb({
    words: "storage volume snapshot",
    args: ["pool", "volume", "snapshot?"],
    flags: {
      noExpiry: { summary: "Ignore any configured auto-expiry for the storage volume" },
      reuse: { summary: "If the snapshot name already exists, delete and create a new one" },
    },
    summary: "Snapshot a storage volume",
    async run(io, [pool = "", volume = "", name = ""], flags) {
      const { type, name: owner } = volumeParts(volume);
      if (type !== "custom") throw new UsageError('Only "custom" volumes can be snapshotted');
      if (flags.reuse && name !== "") {
        const taken = await io.client.get<string[]>(`${volumePath(pool, owner)}/snapshots`);
        if (taken.some((path) => decodeURIComponent(path.split("/").at(-1)!) === name)) {
          await io.client.change("DELETE", volumePath(pool, `${owner}/${name}`));
        }
      }
      // Go's zero time means "never"; without it the volume's own snapshots.expiry applies.
      const expiry = flags.noExpiry ? { expires_at: "0001-01-01T00:00:00Z" } : {};
      await changeWithProgress(io, "POST", `${volumePath(pool, owner)}/snapshots`, { name, ...expiry });
    },
  }),
  verb({
    words: "storage volume snapshot-group",
    args: ["snapshot", "pool/volume..."],
    flags: { noExpiry: { summary: "Ignore any configured auto-expiry" } },
    summary: "Snapshot several storage volumes at one moment, all or none",
    details: `Running containers that have the volumes stand still meanwhile.
Example: lido storage volume snapshot-group before-upgrade fast/data fast/log plain/config
`,
    async run(io, [name = "", ...words], flags) {
      const volumes = words.map(placeOf).map(({ pool, volume }) => ({ pool, name: volume }));
      if (volumes.length === 0) throw new UsageError("Missing volumes: as POOL/VOLUME");
      const expiry = flags.noExpiry ? { expires_at: "0001-01-01T00:00:00Z" } : {};
      await changeWithProgress(io, "POST", "/1.0/storage-snapshot-groups", { name, volumes, ...expiry });
    },
  }),
  verb({
    words: "storage volume restore",
    args: ["pool", "volume", "snapshot"],
    flags: {},
    summary: "Restore a storage volume to a snapshot",
    async run(io, [pool = "", volume = "", snapshot = ""]) {
      const { type, name } = volumeParts(volume);
      if (type !== "custom") throw new UsageError('Only "custom" volumes can be restored: an instance is by "restore"');
      await changeWithProgress(io, "POST", `${volumePath(pool, `${name}/${snapshot}`)}/restore`);
    },
  }),
  verb({
    words: "storage volume copy",
    aliases: ["storage volume cp"],
    args: ["pool/volume", "pool/volume"],
    flags: {
      volumeOnly: { summary: "Copy the volume without its snapshots" },
      refresh: { summary: "Bring an existing copy up to date" },
    },
    summary: "Copy a storage volume, within a pool or to another one",
    async run(io, [from = "", to = ""], flags) {
      await copy(io, placeOf(from), placeOf(to), flags);
      if (!io.quiet) io.out("Storage volume copied successfully!\n");
    },
  }),
  verb({
    words: "storage volume move",
    aliases: ["storage volume mv"],
    args: ["pool/volume", "pool/volume"],
    flags: {},
    summary: "Move a storage volume to another pool, or rename it",
    async run(io, [from = "", to = ""]) {
      const source = placeOf(from), target = placeOf(to);
      const body = { name: target.volume, ...(source.pool === target.pool ? {} : { pool: target.pool }) };
      await changeWithProgress(io, "POST", volumePath(source.pool, source.volume), body);
      if (!io.quiet) io.out("Storage volume moved successfully!\n");
    },
  }),
  verb({
    words: "storage volume export",
    args: ["pool", "volume", "path?"],
    flags: {
      compression: {
        value: "algorithm",
        values: ["none", "gzip", "bzip2", "xz", "zstd"],
        initial: "",
        summary: "none, gzip (default), bzip2, xz or zstd",
      },
      volumeOnly: { summary: "Export the volume without its snapshots" },
      optimizedStorage: { summary: "In the driver's own format, where it has one: smaller, for pools of that driver" },
    },
    summary: "Export a storage volume as one file, which LXD can import too",
    details: `The file is VOLUME.backup when no path is given; "-" is stdout.
`,
    async run(io, [pool = "", volume = "", path], flags) {
      const { exportVolume } = await import("../volume_backup.ts");
      const { compression, volumeOnly, optimizedStorage: optimized } = flags;
      await exportVolume(io, pool, volume, path ?? `${volume}.backup`, { compression, volumeOnly, optimized });
      if (!io.quiet && path !== "-") io.out("Backup exported successfully!\n");
    },
  }),
  verb({
    words: "storage volume import",
    args: ["pool", "path", "volume?"],
    flags: {},
    summary: "Import a storage volume that lido or LXD exported",
    details: `"-" is stdin. Without a name the volume gets the one it had.
`,
    async run(io, [pool = "", path = "", volume = ""]) {
      await (await import("../volume_backup.ts")).importVolume(io, pool, path, volume);
    },
  }),
];
