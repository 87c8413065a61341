import type { FileEntry } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { render } from "../output/render.ts";
import { shortDate } from "../output/units.ts";
import { type Io, type Verb, verb } from "../verb.ts";
import { volumeParts } from "./storage_volume.ts";

/** Parses `volume` or `volume/path`, perhaps with the type before it. */
function placeOf(text: string): { volume: string; path: string } {
  const { type, name } = volumeParts(text);
  if (type !== "custom") throw new UsageError(`Invalid volume "${text}": only "custom" volumes have files here`);
  const slash = name.indexOf("/");
  return slash < 0 ? { volume: name, path: "/" } : { volume: name.slice(0, slash), path: name.slice(slash) };
}

async function filesOf(io: Io, pool: string, volume: string) {
  const { RemoteFiles } = await import("../remote_files.ts");
  return new RemoteFiles(io, url`/1.0/storage-pools/${pool}/volumes/custom/${volume}/files`);
}

export function numberOf(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,10}$/.test(text)) throw new UsageError(`Invalid ${name} "${text}": a number is allowed`);
  return Number(text);
}

export function modeOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[0-7]{1,5}$/.test(text)) throw new UsageError(`Invalid mode "${text}": octal digits are allowed`);
  return parseInt(text, 8);
}

export const pushFlags = {
  createDirs: { short: "p", summary: "Create any directories necessary" },
  recursive: { short: "r", summary: "Push whole directories" },
  uid: { value: "uid", summary: "Owner; that of the local file when absent" },
  gid: { value: "gid", summary: "Group; that of the local file when absent" },
  mode: { value: "mode", summary: "Permissions, octal; those of the local file when absent" },
} as const;
export const pullFlags = {
  createDirs: { short: "p", summary: "Create any directories necessary" },
  recursive: { short: "r", summary: "Pull whole directories" },
} as const;

/** `-rwxr-xr-x`, as in ls(1). */
export function modeText({ type, mode }: FileEntry): string {
  const letter = { file: "-", directory: "d", symlink: "l", other: "?" }[type];
  const triple = (bits: number, special: boolean, on: string) => {
    const x = bits & 1 ? (special ? on : "x") : special ? on.toUpperCase() : "-";
    return `${bits & 4 ? "r" : "-"}${bits & 2 ? "w" : "-"}${x}`;
  };
  return letter + triple(mode >> 6, (mode & 0o4000) !== 0, "s") + triple(mode >> 3, (mode & 0o2000) !== 0, "s") +
    triple(mode, (mode & 0o1000) !== 0, "t");
}

export const verbs: Verb[] = [
  verb({
    words: "storage volume file list",
    aliases: ["storage volume file ls"],
    args: ["pool", "volume/path"],
    flags: {
      format: { short: "f", value: "format", initial: "compact", summary: "csv, json, table, yaml or compact" },
    },
    summary: "List the files of a custom volume, with the owners that its containers see",
    async run(io, [pool = "", text = ""], flags) {
      const { volume, path } = placeOf(text);
      const raw = await (await filesOf(io, pool, volume)).list(path);
      io.out(
        await render(flags.format, {
          headers: ["MODE", "UID", "GID", "SIZE", "MODIFIED", "NAME"],
          rows: raw.map((entry) => [
            modeText(entry),
            String(entry.uid),
            String(entry.gid),
            String(entry.size),
            shortDate(entry.modified_at),
            entry.name,
          ]),
          raw,
          kind: "fileEntry",
        }),
      );
    },
  }),
  verb({
    words: "storage volume file push",
    args: ["source", "pool", "volume/path"],
    flags: pushFlags,
    summary: "Push files into a custom volume, attached or not",
    details: `"-" is stdin. A path that ends with a slash, or is a directory, is one to push into.
A new file is there when it is whole; an old one is overwritten in place and keeps its owner and mode unless they are given.
Examples:
  lido storage volume file push site.conf fast web/etc/site.conf -p --uid 33
  lido storage volume file push -r ./site fast web/srv/
`,
    async run(io, [source = "", pool = "", text = ""], flags) {
      const { volume, path } = placeOf(text);
      const { push } = await import("../file_transfer.ts");
      await push(io, await filesOf(io, pool, volume), [source], path, {
        recursive: flags.recursive,
        createDirs: flags.createDirs,
        uid: numberOf("uid", flags.uid),
        gid: numberOf("gid", flags.gid),
        mode: modeOf(flags.mode),
      });
    },
  }),
  verb({
    words: "storage volume file pull",
    args: ["pool", "volume/path", "target"],
    flags: pullFlags,
    summary: "Pull files from a custom volume, attached or not",
    details: `"-" is stdout. Owners and setuid bits stay behind; links come as links.
`,
    async run(io, [pool = "", text = "", target = ""], flags) {
      const { volume, path } = placeOf(text);
      const { pull } = await import("../file_transfer.ts");
      await pull(io, await filesOf(io, pool, volume), [path], target, flags);
    },
  }),
  verb({
    words: "storage volume file delete",
    aliases: ["storage volume file rm"],
    args: ["pool", "volume/path"],
    flags: {},
    summary: "Delete a file, link or empty directory of a custom volume",
    async run(io, [pool = "", text = ""]) {
      const { volume, path } = placeOf(text);
      await (await filesOf(io, pool, volume)).remove(path);
    },
  }),
];
