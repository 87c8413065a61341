/** The device verbs of profiles and of instances. */
import type { Config, Devices } from "../api/types.ts";
import { UsageError } from "./client/errors.ts";
import { change, type Configurable, settingsOf } from "./settings.ts";
import { type Io, type Verb, verb, withArticle } from "./verb.ts";

interface Owner {
  readonly devices: Devices;
  readonly expanded_devices?: Devices;
}

/** The available names, for the end of a "not found" error. */
export function thereAre(names: readonly string[]): string {
  return names.length === 0
    ? "there is none"
    : `there ${names.length === 1 ? "is" : "are"} ${[...names].sort().join(", ")}`;
}

/** @throws {UsageError} When the device is not the owner's own: a profile's device is changed in the profile, or overridden. */
function ownDevice({ devices, expanded_devices: expanded }: Owner, name: string): Config {
  const device = devices[name];
  if (device) return device;
  if (expanded?.[name]) {
    throw new UsageError(
      "Device from profile(s) cannot be removed from individual instance. Override device or modify profile instead",
    );
  }
  throw new UsageError(`Device doesn't exist: ${JSON.stringify(name)}: ${thereAre(Object.keys(devices))}`);
}

const without = (devices: Devices, names: readonly string[]): Devices =>
  Object.fromEntries(Object.entries(devices).filter(([name]) => !names.includes(name)));

export async function addDevice(
  io: Io,
  owner: Configurable,
  args: readonly string[],
  name: string,
  device: Config,
  refusal = `The device already exists: ${JSON.stringify(name)}`,
): Promise<void> {
  await change(io, owner, args, ({ devices = {} }) => {
    if (devices[name]) throw new UsageError(refusal);
    return { devices: { ...devices, [name]: device } };
  });
}

export async function removeDevices(
  io: Io,
  owner: Configurable,
  args: readonly string[],
  names: readonly string[],
  flags: { readonly lazy: boolean },
): Promise<void> {
  await change(io, owner, args, (thing) => {
    for (const name of names) ownDevice(thing as unknown as Owner, name);
    return { devices: without(thing.devices ?? {}, names) };
  }, flags.lazy ? "?detach=lazy" : "");
}

export const lazyFlag = { lazy: { summary: "Detach a disk that is in use too: it goes when it is let go" } } as const;

/** @param owner The kind of thing that has the devices; `owner.args` is one name. */
export function deviceVerbs(owner: Configurable): Verb[] {
  const [target = "name"] = owner.args;
  const words = `${owner.words} device`;
  const of = owner.noun;
  const get = (io: Io, args: readonly string[]) => io.client.get<Owner>(owner.path(args));
  return [
    verb({
      words: `${words} add`,
      args: [target, "device", "type", "key=value..."],
      flags: {},
      summary: `Add a device to ${withArticle(of)}`,
      async run(io, [name = "", device = "", type = "", ...settings]) {
        await addDevice(io, owner, [name], device, { type, ...settingsOf(settings) });
        if (!io.quiet) io.out(`Device ${device} added to ${name}\n`);
      },
    }),
    verb({
      words: `${words} list`,
      aliases: [`${words} ls`],
      args: [target],
      flags: {},
      summary: `List the devices of ${withArticle(of)}`,
      async run(io, args) {
        const names = Object.keys((await get(io, args)).devices).sort();
        if (names.length > 0) io.out(`${names.join("\n")}\n`);
      },
    }),
    verb({
      words: `${words} show`,
      args: [target],
      flags: {},
      summary: `Show the devices of ${withArticle(of)}`,
      async run(io, args) {
        const { yaml } = await import("./output/yaml.ts");
        const { devices } = await get(io, args);
        const sorted = Object.entries(devices).sort(([left], [right]) => left < right ? -1 : 1)
          .map(([name, device]) => [name, Object.fromEntries(Object.entries(device).sort())]);
        io.out(yaml(Object.fromEntries(sorted)));
      },
    }),
    verb({
      words: `${words} get`,
      args: [target, "device", "key"],
      flags: {},
      summary: `Get a key of a device`,
      async run(io, [name = "", device = "", key = ""]) {
        io.out(`${ownDevice(await get(io, [name]), device)[key] ?? ""}\n`);
      },
    }),
    verb({
      words: `${words} set`,
      args: [target, "device", "key=value+"],
      flags: {},
      summary: `Set keys of a device`,
      async run(io, [name = "", device = "", ...settings]) {
        const pair = settings.length === 2 && !settings[0]!.includes("=");
        const changes = pair ? { [settings[0]!]: settings[1]! } : settingsOf(settings);
        await change(io, owner, [name], (thing) => ({
          devices: { ...thing.devices, [device]: { ...ownDevice(thing as unknown as Owner, device), ...changes } },
        }));
      },
    }),
    verb({
      words: `${words} unset`,
      args: [target, "device", "key"],
      flags: {},
      summary: `Unset a key of a device`,
      async run(io, [name = "", device = "", key = ""]) {
        await change(io, owner, [name], (thing) => {
          const { [key]: _, ...rest } = ownDevice(thing as unknown as Owner, device);
          return { devices: { ...thing.devices, [device]: rest } };
        });
      },
    }),
    verb({
      words: `${words} remove`,
      aliases: [`${words} rm`],
      args: [target, "device+"],
      flags: lazyFlag,
      summary: `Remove devices of ${withArticle(of)}`,
      async run(io, [name = "", ...devices], flags) {
        await removeDevices(io, owner, [name], devices, flags);
        if (!io.quiet) { for (const device of devices) io.out(`Device ${device} removed from ${name}\n`); }
      },
    }),
  ];
}
