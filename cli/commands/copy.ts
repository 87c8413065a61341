import type { Devices, Instance } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { showNotes } from "../output/notes.ts";
import { changeWithProgress } from "../output/progress.ts";
import { settingsOf } from "../settings.ts";
import { type Io, type Verb, verb } from "../verb.ts";

/** `instance` or `instance/snapshot`. */
function partsOf(text: string): { name: string; snapshot: string | undefined } {
  const [name = "", snapshot] = text.split("/");
  return { name, snapshot };
}

const snapshotPath = (name: string, snapshot: string) => url`/1.0/instances/${name}/snapshots/${snapshot}`;

type Source = Pick<Instance, "architecture" | "config" | "devices" | "profiles" | "expanded_devices">;

function rootOf(devices: Devices): [name: string, device: Devices[string]] | undefined {
  return Object.entries(devices).find(([, one]) => one.type === "disk" && one.path === "/");
}

/** Filters out deleted profiles: a snapshot may name some. */
async function existing(io: Io, profiles: readonly string[]): Promise<string[]> {
  const all = (await io.client.get<string[]>("/1.0/profiles")).map((one) => decodeURIComponent(one.split("/").at(-1)!));
  const gone = profiles.filter((one) => !all.includes(one));
  if (gone.length > 0) {
    const names = gone.map((one) => `"${one}"`).join(", ");
    showNotes(io, { notes: [`Profiles that are not there any more were left out: ${names}`] });
  }
  return profiles.filter((one) => !gone.includes(one));
}

async function rename(io: Io, from: string, to: string): Promise<void> {
  const source = partsOf(from);
  if (source.snapshot !== undefined) {
    const target = partsOf(to);
    if (target.snapshot !== undefined && target.name !== source.name) {
      throw new UsageError("Invalid new snapshot name, parent instance must be the same as source");
    }
    await io.client.change("POST", snapshotPath(source.name, source.snapshot), { name: target.snapshot ?? to });
    return;
  }
  await io.client.change("POST", url`/1.0/instances/${from}`, { name: to });
}

export const verbs: Verb[] = [
  verb({
    words: "copy",
    aliases: ["cp"],
    args: ["instance", "new name"],
    flags: {
      config: { short: "c", value: "key=value", many: true, summary: "Setting of the new instance" },
      ephemeral: { short: "e", summary: "Delete the new instance when it stops" },
      instanceOnly: { summary: "Copy the instance without its snapshots" },
      storage: { short: "s", value: "pool", summary: "Storage pool of the new root disk" },
    },
    summary: "Copy an instance, or a snapshot of one",
    async run(io, [from = "", to = ""], flags) {
      const { name, snapshot } = partsOf(from);
      const instance = await io.client.get<Instance>(url`/1.0/instances/${name}`);
      // As in lxc: a copy of a snapshot gets the snapshot's settings.
      const source = snapshot === undefined ? instance : await io.client.get<Source>(snapshotPath(name, snapshot));
      const profiles = await existing(io, source.profiles);
      const own = rootOf(source.expanded_devices);
      const [device, root] = own ?? rootOf(instance.expanded_devices) ?? ["root", { type: "disk", path: "/" }];
      const config = Object.entries(source.config).filter(([key]) => !key.startsWith("volatile."));
      await changeWithProgress(io, "POST", "/1.0/instances", {
        name: to,
        architecture: source.architecture,
        config: { ...Object.fromEntries(config), ...settingsOf(flags.config) },
        devices: {
          ...source.devices,
          ...(flags.storage !== undefined
            ? { [device]: { ...root, pool: flags.storage } }
            : own
            ? {}
            : { [device]: root }),
        },
        profiles,
        ephemeral: flags.ephemeral,
        source: { type: "copy", source: from, instance_only: flags.instanceOnly },
      });
    },
  }),
  verb({
    words: "move",
    aliases: ["mv"],
    args: ["instance", "new name"],
    flags: {},
    summary: "Rename an instance, or a snapshot of one",
    run: (io, [from = "", to = ""]) => rename(io, from, to),
  }),
  verb({
    words: "rename",
    args: ["instance", "new name"],
    flags: {},
    summary: "Rename an instance, or a snapshot of one",
    run: (io, [from = "", to = ""]) => rename(io, from, to),
  }),
  verb({
    words: "snapshot",
    args: ["instance", "snapshot?"],
    flags: {
      noExpiry: { summary: "Ignore any configured auto-expiry for the instance" },
      reuse: { summary: "If the snapshot name already exists, delete and create a new one" },
    },
    summary: "Snapshot an instance",
    async run(io, [name = "", snapshot = ""], flags) {
      const path = url`/1.0/instances/${name}/snapshots`;
      if (flags.reuse && snapshot !== "") {
        const taken = await io.client.get<string[]>(path);
        if (taken.some((one) => decodeURIComponent(one.split("/").at(-1)!) === snapshot)) {
          await io.client.change("DELETE", snapshotPath(name, snapshot));
        }
      }
      const expiry = flags.noExpiry ? { expires_at: "0001-01-01T00:00:00Z" } : {};
      await changeWithProgress(io, "POST", path, { name: snapshot, stateful: false, ...expiry });
    },
  }),
  verb({
    words: "restore",
    args: ["instance", "snapshot"],
    flags: {},
    summary: "Restore an instance to a snapshot",
    async run(io, [name = "", snapshot = ""]) {
      const found = snapshot.includes("/") ? snapshot : `${name}/${snapshot}`;
      await changeWithProgress(io, "PUT", url`/1.0/instances/${name}`, { restore: found });
    },
  }),
];
