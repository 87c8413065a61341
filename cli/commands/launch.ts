import type { Config, Devices, Operation, Profile } from "../../api/types.ts";
import { ApiError, UsageError } from "../client/errors.ts";
import { changeWithProgress } from "../output/progress.ts";
import { settingsOf } from "../settings.ts";
import { isTerminal } from "../terminal/is_terminal.ts";
import { type Flags, type Io, verb } from "../verb.ts";
import { attachConsole, console, setState } from "./instance.ts";

const flagTable = {
  config: { short: "c", value: "key=value", many: true, summary: "Setting of the new instance" },
  device: { short: "d", value: "device,key=value", many: true, summary: "Other keys for a device of the profiles" },
  empty: { summary: "Create an empty instance" },
  ephemeral: { short: "e", summary: "Delete the instance when it stops" },
  noProfiles: { summary: "Create the instance with no profiles applied" },
  profile: { short: "p", value: "profile", many: true, summary: "Profile of the new instance, instead of default" },
  storage: { short: "s", value: "pool", summary: "Storage pool of the root disk" },
} as const;
type CreateFlags = Flags<typeof flagTable>;

const details =
  `The name is made up when none is given. YAML with config, devices, profiles and description may come on stdin:
  lido launch busybox c1 < config.yaml
`;

/** Settings from a file, here-document or pipe on stdin, as in lxc. */
async function fromStdin(): Promise<Record<string, unknown>> {
  if (await isTerminal(0)) return {};
  const { fstatSync } = await import("node:fs");
  let hasInput = false;
  try {
    const info = fstatSync(0);
    hasInput = info.isFile() || info.isFIFO();
  } catch { /* closed */ }
  if (!hasInput) return {};
  const { readInput } = await import("../settings.ts");
  const text = await readInput();
  if (text.trim() === "") return {};
  const { yamlMap } = await import("../yaml_input.ts");
  return await yamlMap(text);
}

/** The devices that differ from the profiles': the root disk on another pool, and those of `--device`. */
async function devicesOf(io: Io, flags: CreateFlags, profiles: readonly string[], own: Devices): Promise<Devices> {
  const devices = { ...own };
  if (flags.storage === undefined && flags.device.length === 0) return devices;
  const inherited: Devices = {};
  const known = await io.client.get<Profile[]>("/1.0/profiles?recursion=1");
  for (const name of profiles) Object.assign(inherited, known.find((profile) => profile.name === name)?.devices);
  if (flags.storage !== undefined) {
    const isRoot = (device: Config) => device.type === "disk" && device.path === "/";
    const [name, root] = Object.entries({ ...inherited, ...devices }).find(([, device]) => isRoot(device)) ??
      ["root", { type: "disk", path: "/" }];
    devices[name] = { ...root, pool: flags.storage };
  }
  for (const text of flags.device) {
    const comma = text.indexOf(",");
    if (comma <= 0) throw new UsageError(`Bad syntax, expecting <device>,<key>=<value>: "${text}"`);
    const name = text.slice(0, comma);
    const base = devices[name] ?? inherited[name] ?? {};
    devices[name] = { ...base, ...settingsOf([text.slice(comma + 1)]) };
  }
  return devices;
}

async function create(io: Io, words: readonly string[], flags: CreateFlags): Promise<string> {
  const [first, second] = words;
  const [image, name = ""] = flags.empty ? [undefined, first] : [first, second];
  if (flags.empty && second !== undefined) throw new UsageError("--empty cannot be combined with an image name");
  if (!flags.empty && image === undefined) throw new UsageError("Missing image name");
  if (flags.noProfiles && flags.profile.length > 0) {
    throw new UsageError("Can't use --no-profiles and --profile together");
  }
  const given = await fromStdin();
  const profiles = flags.noProfiles
    ? []
    : flags.profile.length > 0
    ? flags.profile
    : given.profiles as string[] | undefined ?? ["default"];
  if (!io.quiet) io.out(name === "" ? "Creating the instance\n" : `Creating ${name}\n`);
  const operation = await advised(
    image,
    changeWithProgress(io, "POST", "/1.0/instances", {
      ...given,
      name,
      type: "container",
      ephemeral: flags.ephemeral || given.ephemeral === true,
      profiles,
      config: { ...given.config as Config | undefined, ...settingsOf(flags.config) },
      devices: await devicesOf(io, flags, profiles, given.devices as Devices | undefined ?? {}),
      source: image === undefined ? { type: "none" } : { type: "image", alias: image },
    }),
  );
  const made = name || nameIn(operation);
  if (!io.quiet && name === "") io.out(`Instance name is: ${made}\n`);
  return made;
}

/** Adds the client's advice to an error of the daemon that names what is missing. */
async function advised<T>(image: string | undefined, creation: Promise<T>): Promise<T> {
  try {
    return await creation;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const advice = await adviceOn(error.message, image);
    throw advice === undefined ? error : new ApiError(error.status, `${error.message}: ${advice}`);
  }
}

async function adviceOn(message: string, image: string | undefined): Promise<string | undefined> {
  if (message.includes("No root device could be found")) {
    return 'set up a storage pool and the default profile by "lido admin init", or name a pool by --storage';
  }
  if (image === undefined || !message.includes("Image not found")) return undefined;
  return (await import("../missing.ts")).missingImage(image);
}

function nameIn(operation: Operation | undefined): string {
  const path = operation?.resources.instances?.[0] ?? "";
  return decodeURIComponent(path.split("/").at(-1)!);
}

export const verbs = [
  verb({
    words: "init",
    aliases: ["create"],
    args: ["image?", "name?"],
    flags: flagTable,
    summary: "Create instances from images",
    details,
    async run(io, words, flags) {
      await create(io, words, flags);
    },
  }),
  verb({
    words: "launch",
    args: ["image?", "name?"],
    flags: { ...flagTable, console },
    summary: "Create and start instances from images",
    details,
    async run(io, words, flags) {
      const name = await create(io, words, flags);
      if (!io.quiet) io.out(`Starting ${name}\n`);
      await setState(io, name, "start");
      if (flags.console) return await attachConsole(io, name);
    },
  }),
];
