import type { Image, ImageAliasesEntry, Operation } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { ApiError, UsageError } from "../client/errors.ts";
import { thereAre } from "../device_verbs.ts";
import { importImage } from "../image_upload.ts";
import { type Column, columnsOf, matchesImage } from "../output/image_columns.ts";
import { waitWithProgress } from "../output/progress.ts";
import { render } from "../output/render.ts";
import { showBytes } from "../../api/size.ts";
import { longDate } from "../output/units.ts";
import { change, type Configurable, settingsOf, settingVerbs } from "../settings.ts";
import { type Io, type Verb, verb } from "../verb.ts";

/** The fingerprint for an alias or the beginning of a fingerprint. */
async function fingerprintOf(io: Io, name: string): Promise<string> {
  try {
    return (await io.client.get<ImageAliasesEntry>(url`/1.0/images/aliases/${name}`)).target;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return name;
    throw error;
  }
}

async function imageOf(io: Io, name: string): Promise<Image> {
  return await io.client.get<Image>(url`/1.0/images/${await fingerprintOf(io, name)}`);
}

const images: Configurable = {
  words: "image",
  args: ["image"],
  noun: "image",
  kind: "image",
  writable: ["auto_update", "properties", "public", "expires_at", "profiles"],
  path: ([name = ""]) => url`/1.0/images/${name}`,
};

function settings(words: string): Verb {
  const found = settingVerbs(images).find((one) => one.words === words)!;
  return {
    ...found,
    run: async (io, [name = "", ...rest], flags) =>
      await found.run(io, [await fingerprintOf(io, name), ...rest], flags),
  };
}

async function changeProperties(io: Io, name: string, alter: (all: Record<string, string>) => Record<string, string>) {
  const fingerprint = await fingerprintOf(io, name);
  await change(io, images, [fingerprint], (image) => ({
    properties: alter((image as unknown as Image).properties),
  }));
}

function infoOf(image: Image): string {
  const sorted = Object.entries(image.properties).sort(([left], [right]) => left < right ? -1 : 1);
  const list = (values: readonly string[]) => values.map((value) => `    - ${value}\n`).join("");
  return `Fingerprint: ${image.fingerprint}\n` +
    `Size: ${showBytes(image.size)}\n` +
    `Architecture: ${image.architecture}\n` +
    `Type: ${image.type}\n` +
    `Public: ${image.public ? "yes" : "no"}\n` +
    "Timestamps:\n" +
    (longDate(image.created_at) === "-" ? "" : `    Created: ${longDate(image.created_at)}\n`) +
    `    Uploaded: ${longDate(image.uploaded_at)}\n` +
    `    Expires: ${longDate(image.expires_at) === "-" ? "never" : longDate(image.expires_at)}\n` +
    `    Last used: ${longDate(image.last_used_at) === "-" ? "never" : longDate(image.last_used_at)}\n` +
    `Properties:\n${sorted.map(([key, value]) => `    ${key}: ${value}\n`).join("")}` +
    `Aliases:\n${list(image.aliases.map(({ name }) => name))}` +
    `Cached: ${image.cached ? "yes" : "no"}\n` +
    `Auto update: ${image.auto_update ? "enabled" : "disabled"}\n` +
    `Profiles:${image.profiles.length === 0 ? " []" : ""}\n${list(image.profiles)}`;
}

export const verbs: Verb[] = [
  settings("image show"),
  settings("image edit"),
  verb({
    words: "image import",
    args: ["file", "rootfs or key=value..."],
    flags: {
      alias: { value: "alias", many: true, summary: "New alias of the image" },
      public: { summary: "Make the image public" },
    },
    summary: "Import an image: one tarball, or its metadata and its root filesystem",
    details: `Example: lido image import busybox.tar.xz --alias busybox
`,
    async run(io, [file = "", ...rest], flags) {
      const rootfs = rest[0] !== undefined && !rest[0].includes("=") ? rest.shift() : undefined;
      const taken = await io.client.get<ImageAliasesEntry[]>("/1.0/images/aliases?recursion=1");
      for (const alias of flags.alias) {
        if (taken.some(({ name }) => name === alias)) throw new UsageError(`Alias already exists: ${alias}`);
      }
      const options = { properties: settingsOf(rest), isPublic: flags.public };
      const operation: Operation = await importImage(io, rootfs === undefined ? [file] : [file, rootfs], options);
      const finished = await waitWithProgress(io, operation);
      const fingerprint = String(finished.metadata?.fingerprint);
      for (const name of flags.alias) {
        await io.client.change("POST", "/1.0/images/aliases", { name, target: fingerprint, description: "" });
      }
      if (!io.quiet) io.out(`Image imported with fingerprint: ${fingerprint}\n`);
    },
  }),
  verb({
    words: "image list",
    aliases: ["image ls"],
    args: ["filter..."],
    flags: {
      format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" },
      columns: { short: "c", value: "columns", initial: "lfpdatsu", summary: "Columns" },
    },
    summary: "List images",
    details: `A filter is the beginning of an alias or a fingerprint, or key=value on the properties.

Columns:
  a Architecture   d Description   f Fingerprint (short)   F Fingerprint   l Shortest alias
  L All aliases    p Public        s Size                  t Type          u Upload date
`,
    async run(io, filters, flags) {
      const columns: Column[] = columnsOf(flags.columns);
      const server = filters.find((filter) => filter.endsWith(":"));
      if (server !== undefined) {
        const { missingImage } = await import("../missing.ts");
        throw new UsageError(`Cannot list the images of "${server}": ${missingImage(server)}`);
      }
      const all = await io.client.get<Image[]>("/1.0/images?recursion=1");
      const raw = all.filter((image) => matchesImage(image, filters));
      const rows = raw.map((image) => columns.map((column) => column.value(image)));
      const order = rows.map((_, index) => index).sort((left, right) =>
        rows[left]!.join() < rows[right]!.join() ? -1 : 1
      );
      io.out(
        await render(flags.format, {
          headers: columns.map(({ title }) => title),
          rows: order.map((index) => rows[index]!),
          raw: order.map((index) => raw[index]!),
          kind: "image",
        }),
      );
    },
  }),
  verb({
    words: "image info",
    args: ["image"],
    flags: {},
    summary: "Show useful information about an image",
    async run(io, [name = ""]) {
      io.out(infoOf(await imageOf(io, name)));
    },
  }),
  verb({
    words: "image delete",
    aliases: ["image rm"],
    args: ["image+"],
    flags: {},
    summary: "Delete images",
    async run(io, names) {
      const { each } = await import("./instance.ts");
      await each(names, "delete", async (name) => {
        await io.client.change("DELETE", url`/1.0/images/${await fingerprintOf(io, name)}`);
      });
    },
  }),
  verb({
    words: "image get-property",
    args: ["image", "key"],
    flags: {},
    summary: "Get an image property",
    async run(io, [name = "", key = ""]) {
      const value = (await imageOf(io, name)).properties[key];
      if (value === undefined) throw new UsageError(`Property not found: ${JSON.stringify(key)}`);
      io.out(`${value}\n`);
    },
  }),
  verb({
    words: "image set-property",
    args: ["image", "key", "value"],
    flags: {},
    summary: "Set an image property",
    run: (io, [name = "", key = "", value = ""]) => changeProperties(io, name, (all) => ({ ...all, [key]: value })),
  }),
  verb({
    words: "image unset-property",
    args: ["image", "key"],
    flags: {},
    summary: "Unset an image property",
    run: (io, [name = "", key = ""]) =>
      changeProperties(io, name, (all) => {
        if (!(key in all)) {
          throw new UsageError(`Property not found: ${JSON.stringify(key)}: ${thereAre(Object.keys(all))}`);
        }
        return Object.fromEntries(Object.entries(all).filter(([one]) => one !== key));
      }),
  }),
  verb({
    words: "image alias create",
    args: ["alias", "fingerprint"],
    flags: { description: { value: "text", initial: "", summary: "Description of the alias" } },
    summary: "Create an alias for an image",
    async run(io, [name = "", target = ""], flags) {
      await io.client.change("POST", "/1.0/images/aliases", { name, target, description: flags.description });
    },
  }),
  verb({
    words: "image alias delete",
    aliases: ["image alias rm"],
    args: ["alias"],
    flags: {},
    summary: "Delete an image alias",
    async run(io, [name = ""]) {
      await io.client.change("DELETE", url`/1.0/images/aliases/${name}`);
    },
  }),
  verb({
    words: "image alias rename",
    aliases: ["image alias mv"],
    args: ["alias", "new name"],
    flags: {},
    summary: "Rename an image alias",
    async run(io, [name = "", to = ""]) {
      await io.client.change("POST", url`/1.0/images/aliases/${name}`, { name: to });
    },
  }),
  verb({
    words: "image alias list",
    aliases: ["image alias ls"],
    args: ["filter..."],
    flags: { format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" } },
    summary: "List image aliases",
    async run(io, filters, flags) {
      const all = await io.client.get<ImageAliasesEntry[]>("/1.0/images/aliases?recursion=1");
      const raw = all.filter(({ name, target }) =>
        filters.every((filter) => name.includes(filter) || target.startsWith(filter))
      );
      const rows = raw.map((one) => [one.name, one.target.slice(0, 12), one.type.toUpperCase(), one.description]);
      const headers = ["ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"];
      io.out(await render(flags.format, { headers, rows, raw, kind: "imageAlias" }));
    },
  }),
];
