import type { Config, Devices, Instance, Profile } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { deviceVerbs } from "../device_verbs.ts";
import { render } from "../output/render.ts";
import { type Configurable, settingVerbs } from "../settings.ts";
import { type Io, verb } from "../verb.ts";

export const profiles: Configurable = {
  words: "profile",
  args: ["profile"],
  noun: "profile",
  kind: "profile",
  writable: ["config", "description", "devices"],
  path: ([name = ""]) => url`/1.0/profiles/${name}`,
};

/** Replaces the list of an instance's profiles. */
async function assign(io: Io, instance: string, alter: (profiles: string[]) => string[]): Promise<void> {
  const path = url`/1.0/instances/${instance}`;
  const { value, etag } = await io.client.getTagged<Instance>(path);
  const { architecture, config, devices, ephemeral, stateful, description } = value;
  const body = { architecture, config, devices, ephemeral, stateful, description, profiles: alter(value.profiles) };
  await io.client.change("PUT", path, body, etag === undefined ? {} : { etag });
}

export const verbs = [
  ...settingVerbs(profiles),
  ...deviceVerbs(profiles),
  verb({
    words: "profile list",
    aliases: ["profile ls"],
    args: [],
    flags: { format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" } },
    summary: "List profiles",
    async run(io, _args, flags) {
      const raw = await io.client.get<Profile[]>("/1.0/profiles?recursion=1");
      const rows = raw.map(({ name, description, used_by: users }) => [name, description, String(users.length)]);
      io.out(await render(flags.format, { headers: ["NAME", "DESCRIPTION", "USED BY"], rows, raw, kind: "profile" }));
    },
  }),
  verb({
    words: "profile create",
    args: ["profile"],
    flags: {},
    summary: "Create a profile",
    async run(io, [name = ""]) {
      await io.client.change("POST", "/1.0/profiles", { name });
      if (!io.quiet) io.out(`Profile ${name} created\n`);
    },
  }),
  verb({
    words: "profile delete",
    aliases: ["profile rm"],
    args: ["profile"],
    flags: {},
    summary: "Delete a profile",
    async run(io, [name = ""]) {
      await io.client.change("DELETE", url`/1.0/profiles/${name}`);
      if (!io.quiet) io.out(`Profile ${name} deleted\n`);
    },
  }),
  verb({
    words: "profile copy",
    aliases: ["profile cp"],
    args: ["profile", "new name"],
    flags: {},
    summary: "Copy a profile",
    async run(io, [name = "", to = ""]) {
      const { config, devices, description } = await io.client.get<Profile>(url`/1.0/profiles/${name}`);
      const copy: { name: string; config: Config; devices: Devices; description: string } = {
        name: to,
        config,
        devices,
        description,
      };
      await io.client.change("POST", "/1.0/profiles", copy);
    },
  }),
  verb({
    words: "profile rename",
    aliases: ["profile mv"],
    args: ["profile", "new name"],
    flags: {},
    summary: "Rename a profile",
    async run(io, [name = "", to = ""]) {
      await io.client.change("POST", url`/1.0/profiles/${name}`, { name: to });
      if (!io.quiet) io.out(`Profile ${name} renamed to ${to}\n`);
    },
  }),
  verb({
    words: "profile assign",
    aliases: ["profile apply"],
    args: ["instance", "profiles"],
    flags: {},
    summary: "Give an instance these profiles, separated by commas, and no others",
    async run(io, [instance = "", names = ""]) {
      await assign(io, instance, () => names.split(",").filter(Boolean));
      if (!io.quiet) io.out(`Profiles ${names || "(none)"} applied to ${instance}\n`);
    },
  }),
  verb({
    words: "profile add",
    args: ["instance", "profile"],
    flags: {},
    summary: "Add a profile to an instance",
    async run(io, [instance = "", name = ""]) {
      await assign(io, instance, (names) => [...names, name]);
      if (!io.quiet) io.out(`Profile ${name} added to ${instance}\n`);
    },
  }),
  verb({
    words: "profile remove",
    args: ["instance", "profile"],
    flags: {},
    summary: "Take a profile from an instance",
    async run(io, [instance = "", name = ""]) {
      await assign(io, instance, (names) => {
        if (!names.includes(name)) {
          throw new UsageError(`Profile ${name} isn't currently applied to ${instance}`);
        }
        return names.filter((one) => one !== name);
      });
      if (!io.quiet) io.out(`Profile ${name} removed from ${instance}\n`);
    },
  }),
];
