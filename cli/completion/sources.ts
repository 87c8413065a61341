/** The candidates for an argument or an option's value, from the daemon, the file system or a list. They are found by the names in the
 * verbs' tables, so that a new verb with an `instance` or a `pool` needs no line here. */
import type {
  Certificate,
  Config,
  ConfigurationMetadata,
  Devices,
  ExecSession,
  Image,
  ImageAliasesEntry,
  Instance,
  KeyMetadata,
  Operation,
  Profile,
  Server,
  StoragePool,
  StorageVolume,
} from "../../api/types.ts";
import { type Client, url } from "../client/client.ts";
import type { Candidate, Given } from "./position.ts";

export interface Place extends Given {
  readonly client: Client;
  /** The part of the word typed so far, without `--option=`. */
  readonly text: string;
}

/** The shell completes file names itself. */
export const files = "files";
type Candidates = readonly Candidate[] | typeof files;
type Source = (place: Place) => Candidates | Promise<Candidates>;

const formats = ["csv", "json", "table", "yaml", "compact"];
const plain = (words: readonly string[]): Candidate[] => words.map((word) => ({ word }));
const none: Source = () => [];

/** The status in which an instance is a candidate for `start`, `stop` and the like. */
const due: Readonly<Record<string, RegExp>> = {
  start: /Stopped|Frozen/,
  stop: /Running|Frozen/,
  restart: /Running/,
  pause: /Running/,
  exec: /Running/,
  console: /Running/,
};

async function instances({ client, verb, args }: Place): Promise<Candidate[]> {
  const all = await client.get<Instance[]>("/1.0/instances?recursion=1");
  const fitting = due[verb.words] ?? /./;
  return all.filter(({ name, status }) => fitting.test(status) && !args.includes(name))
    .map(({ name, status }) => ({ word: name, summary: status }));
}

const lastOf = (path: string) => decodeURIComponent(path.split("?")[0]!.split("/").at(-1)!);

async function instanceSnapshots({ client, args }: Place): Promise<Candidate[]> {
  return plain((await client.get<string[]>(url`/1.0/instances/${args[0] ?? ""}/snapshots`)).map(lastOf));
}

/** An instance, or after a slash one of its snapshots. */
async function instancesAndSnapshots(place: Place): Promise<Candidate[]> {
  const slash = place.text.indexOf("/");
  if (slash < 0) return await instances(place);
  const name = place.text.slice(0, slash);
  const found = await instanceSnapshots({ ...place, args: [name] });
  return found.map(({ word }) => ({ word: `${name}/${word}` }));
}

async function pools({ client }: Place): Promise<Candidate[]> {
  const all = await client.get<StoragePool[]>("/1.0/storage-pools?recursion=1");
  return all.map(({ name, driver }) => ({ word: name, summary: driver }));
}

async function volumesOf(client: Client, pool: string): Promise<StorageVolume[]> {
  return await client.get<StorageVolume[]>(`${url`/1.0/storage-pools/${pool}/volumes`}?recursion=1`);
}

/** Verbs that accept all types of volumes, as `container/c1`. */
const takesTypes = /^storage volume (show|get|set|unset|edit|info|delete)$/;
/** Verbs that accept a snapshot as `volume/snapshot`. */
const takesSnapshots = /^storage volume (show|delete|rename|get|info)$/;

async function volumes({ client, verb, args }: Place): Promise<Candidate[]> {
  const all = await volumesOf(client, args.find((_, index) => verb.args[index] === "pool") ?? "");
  return all.filter(({ type, name }) =>
    (type === "custom" || takesTypes.test(verb.words)) && (!name.includes("/") || takesSnapshots.test(verb.words))
  ).map(({ type, name }) => ({ word: type === "custom" ? name : `${type}/${name}` }));
}

async function volumeSnapshots({ client, args: [pool = "", volume = ""] }: Place): Promise<Candidate[]> {
  const path = url`/1.0/storage-pools/${pool}/volumes/custom/${volume}/snapshots`;
  return plain((await client.get<string[]>(path)).map(lastOf));
}

async function poolAndVolume(place: Place): Promise<Candidate[]> {
  const slash = place.text.indexOf("/");
  if (slash < 0) return (await pools(place)).map(({ word, summary }) => ({ word: `${word}/`, summary: summary! }));
  const pool = place.text.slice(0, slash);
  const all = await volumesOf(place.client, pool);
  const fits = ({ type, name }: StorageVolume) =>
    type === "custom" && (!name.includes("/") || place.verb.words === "storage volume copy");
  return plain(all.filter(fits).map(({ name }) => `${pool}/${name}`));
}

/** A volume, or after a slash the files in it. */
async function volumeAndFile(place: Place): Promise<Candidate[]> {
  const pool = place.args.find((_, index) => place.verb.args[index] === "pool") ?? "";
  const [volume = ""] = place.text.split("/");
  if (!place.text.includes("/")) {
    return (await volumes(place)).map(({ word }) => ({ word: `${word}/` }));
  }
  const directory = place.text.slice(0, place.text.lastIndexOf("/") + 1);
  const { RemoteFiles } = await import("../remote_files.ts");
  const io = { client: place.client, out: () => {}, err: () => {}, quiet: true };
  const remote = new RemoteFiles(io, url`/1.0/storage-pools/${pool}/volumes/custom/${volume}/files`);
  const entries = await remote.list(directory.slice(volume.length));
  return plain(entries.map(({ name, type }) => `${directory}${name}${type === "directory" ? "/" : ""}`));
}

async function images({ client }: Place): Promise<Candidate[]> {
  const all = await client.get<Image[]>("/1.0/images?recursion=1");
  return all.flatMap(({ aliases, fingerprint, properties }) => {
    const summary = properties.description ?? "";
    return [...aliases.map(({ name }) => name), fingerprint.slice(0, 12)].map((word) => ({ word, summary }));
  });
}

async function aliases({ client }: Place): Promise<Candidate[]> {
  return plain((await client.get<ImageAliasesEntry[]>("/1.0/images/aliases?recursion=1")).map(({ name }) => name));
}

async function fingerprints({ client, verb }: Place): Promise<Candidate[]> {
  if (verb.words.startsWith("config trust")) {
    const all = await client.get<Certificate[]>("/1.0/certificates?recursion=1");
    return all.map(({ fingerprint, name }) => ({ word: fingerprint.slice(0, 12), summary: name }));
  }
  const all = await client.get<Image[]>("/1.0/images?recursion=1");
  return plain(all.map(({ fingerprint }) => fingerprint.slice(0, 12)));
}

async function profiles({ client }: Place): Promise<Candidate[]> {
  const all = await client.get<Profile[]>("/1.0/profiles?recursion=1");
  return all.map(({ name, description }) => ({ word: name, summary: description }));
}

/** Names separated by commas. */
async function profileList(place: Place): Promise<Candidate[]> {
  const before = place.text.slice(0, place.text.lastIndexOf(",") + 1);
  const taken = before.split(",");
  return (await profiles(place)).filter(({ word }) => !taken.includes(word)).map(({ word, summary }) => ({
    word: before + word,
    summary: summary!,
  }));
}

async function operations({ client }: Place): Promise<Candidate[]> {
  const all = await client.get<Record<string, Operation[]>>("/1.0/operations?recursion=1");
  return Object.values(all).flat().map(({ id, description }) => ({ word: id, summary: description }));
}

async function sessions({ client }: Place): Promise<Candidate[]> {
  const all = await client.get<ExecSession[]>("/1.0/exec-sessions?recursion=1");
  return all.map(({ id, instance, command }) => ({ word: id, summary: `${instance}: ${command.join(" ")}` }));
}

type Keys = Readonly<Record<string, KeyMetadata>>;

/** @param groups Groups of keys; default: all. */
async function keysOf(client: Client, thing: string, groups?: readonly string[]): Promise<Keys> {
  const { configs } = await client.get<ConfigurationMetadata>("/1.0/metadata/configuration");
  const chosen = Object.entries(configs[thing] ?? {}).filter(([name]) => groups?.includes(name) ?? true);
  return Object.assign({}, ...chosen.flatMap(([, { keys }]) => keys)) as Keys;
}

async function driverOf(client: Client, pool: string): Promise<string> {
  return (await client.get<StoragePool>(url`/1.0/storage-pools/${pool}`)).driver;
}

interface Target {
  readonly config: Config;
  readonly devices?: Devices;
  readonly expanded_devices?: Devices;
}

/** The instance or profile that a verb of `config` or `profile` is about. */
async function target({ client, verb, args: [name = ""] }: Place): Promise<Target> {
  return await client.get<Target>(
    verb.words.startsWith("profile") ? url`/1.0/profiles/${name}` : url`/1.0/instances/${name}`,
  );
}

/** The keys that `key=value` may have at this place. */
async function possibleKeys(place: Place): Promise<Keys> {
  const { client, verb, args } = place;
  const [first = "", second = "", third = ""] = args;
  const { words } = verb;
  if (/ device (add|set|override)$/.test(words)) {
    const type = words.endsWith("add")
      ? third
      : await target(place).then(({ devices, expanded_devices: expanded }) =>
        (expanded ?? devices)?.[second]?.type ?? ""
      );
    return await keysOf(client, `device-${type}`);
  }
  if (words === "storage create") return await withVolumeKeys(client, second);
  if (/^storage (set|unset|get)$/.test(words)) return await withVolumeKeys(client, await driverOf(client, first));
  if (words.startsWith("storage volume")) {
    return await keysOf(client, `storage-${await driverOf(client, first)}`, ["volume-conf"]);
  }
  return await keysOf(client, "instance");
}

/** A pool's own keys, and those for the defaults of its volumes. */
async function withVolumeKeys(client: Client, driver: string): Promise<Keys> {
  const pool = await keysOf(client, `storage-${driver}`, ["pool-conf"]);
  const ofVolumes = await keysOf(client, `storage-${driver}`, ["volume-conf"]);
  const defaults = Object.entries(ofVolumes).map(([key, one]) => [`volume.${key}`, one]);
  return { ...pool, ...Object.fromEntries(defaults) };
}

/** `key=`; after the sign, or after a key as a word of its own, the key's values. */
async function settings(place: Place, keys: Keys): Promise<Candidate[]> {
  const equals = place.text.indexOf("=");
  const { args, verb } = place;
  const last = args.at(-1) ?? "";
  // A pool may have the name of a key.
  if (
    equals < 0 && verb.words.endsWith(" set") && Object.hasOwn(keys, last) && (args.length > 1 || last.includes("."))
  ) {
    const found = await settings({ ...place, args: args.slice(0, -1), text: `${last}=${place.text}` }, keys);
    return found.map(({ word, ...rest }) => ({ word: word.slice(last.length + 1), ...rest }));
  }
  if (equals < 0) {
    return Object.entries(keys).map(([key, { shortdesc }]) => ({ word: `${key}=`, summary: shortdesc }));
  }
  const key = place.text.slice(0, equals);
  const behind = (found: Candidates) =>
    found === files
      ? []
      : found.map(({ word, summary }) => ({ word: `${key}=${word}`, ...(summary ? { summary } : {}) }));
  const words = Object.hasOwn(keys, key) ? keys[key]!.values : undefined;
  if (words !== undefined) return behind(plain(words));
  if (key === "pool") return behind(await pools(place));
  const pool = place.args.find((word) => word.startsWith("pool="))?.slice("pool=".length);
  if (key === "source" && pool !== undefined) {
    const all = await volumesOf(place.client, pool);
    return behind(
      plain(all.filter(({ type, name }) => type === "custom" && !name.includes("/")).map(({ name }) => name)),
    );
  }
  if (key === "source") return behind(await filesBelow(place.text.slice(equals + 1)));
  return [];
}

/** Files of this host, where the path is only a part of the word and the shell cannot complete it. */
async function filesBelow(text: string): Promise<Candidate[]> {
  const { readdir } = await import("node:fs/promises");
  const directory = text.slice(0, text.lastIndexOf("/") + 1);
  const entries = await readdir(directory || ".", { withFileTypes: true });
  return plain(entries.map((entry) => `${directory}${entry.name}${entry.isDirectory() ? "/" : ""}`));
}

const keyValues: Source = async (place) => await settings(place, await possibleKeys(place));

/** The keys that are set, for `get` and `unset`. */
async function setKeys(place: Place): Promise<Candidate[]> {
  const { client, verb, args: [first = "", second = ""] } = place;
  if (verb.words.startsWith("image ")) {
    const all = await client.get<Image[]>("/1.0/images?recursion=1");
    const found = all.find(({ fingerprint, aliases: names }) =>
      fingerprint.startsWith(first) || names.some(({ name }) => name === first)
    );
    return plain(Object.keys(found?.properties ?? {}));
  }
  if (/ device /.test(verb.words)) return plain(Object.keys((await target(place)).devices?.[second] ?? {}));
  if (verb.words.startsWith("storage volume")) {
    const { volumePath } = await import("../commands/storage_volume.ts");
    return plain(Object.keys((await client.get<Target>(volumePath(first, second))).config));
  }
  if (verb.words.startsWith("storage")) {
    return plain(Object.keys((await client.get<Target>(url`/1.0/storage-pools/${first}`)).config));
  }
  return plain(Object.keys((await target(place)).config));
}

async function devices(place: Place): Promise<Candidate[]> {
  const { verb, args } = place;
  if (verb.words.endsWith("device add") || verb.words.includes("attach")) return [];
  if (verb.words.includes("detach")) {
    const [pool, volume, name = ""] = args;
    const path = verb.words.endsWith("profile") ? url`/1.0/profiles/${name}` : url`/1.0/instances/${name}`;
    const { devices: own = {} } = await place.client.get<Target>(path);
    return plain(Object.keys(own).filter((key) => own[key]!.pool === pool && own[key]!.source === volume));
  }
  const { devices: own = {}, expanded_devices: expanded = {} } = await target(place);
  const all = verb.words.endsWith("override") ? expanded : own;
  return Object.entries(all).filter(([name]) => !args.includes(name) && !(verb.words.endsWith("override") && own[name]))
    .map(([word, { type = "" }]) => ({ word, summary: type }));
}

/** For `launch -d root,size=10GiB`. */
async function deviceOverride(place: Place): Promise<Candidate[]> {
  const comma = place.text.indexOf(",");
  const { devices: inherited } = await place.client.get<Profile>(
    url`/1.0/profiles/${place.flags.get("profile") ?? "default"}`,
  );
  if (comma < 0) return Object.entries(inherited).map(([name, { type = "" }]) => ({ word: `${name},`, summary: type }));
  const name = place.text.slice(0, comma);
  const keys = await keysOf(place.client, `device-${inherited[name]?.type ?? "disk"}`);
  const found = await settings({ ...place, text: place.text.slice(comma + 1) }, keys);
  return found.map(({ word, ...rest }) => ({ word: `${name},${word}`, ...rest }));
}

async function serverKeys({ client }: Place): Promise<Keys> {
  return await keysOf(client, "server");
}

async function drivers({ client }: Place): Promise<Candidate[]> {
  const { environment } = await client.get<Server>("/1.0");
  return environment.storage_supported_drivers.map(({ Name, Version }) => ({ word: Name, summary: Version }));
}

async function deviceTypes({ client }: Place): Promise<Candidate[]> {
  const { configs } = await client.get<ConfigurationMetadata>("/1.0/metadata/configuration");
  return plain(
    Object.keys(configs).flatMap((name) => name.startsWith("device-") ? [name.slice("device-".length)] : []),
  );
}

/** Another column letter after those given. */
async function columns({ verb, text }: Place): Promise<Candidate[]> {
  const titles = verb.words === "list"
    ? (await import("../output/instance_columns.ts")).columnTitles()
    : verb.words === "image list"
    ? (await import("../output/image_columns.ts")).columnTitles()
    : Object.entries((await import("../commands/storage_volume.ts")).titles);
  return titles.filter(([letter]) => !text.includes(letter)).map(([letter, title]) => ({
    word: text + letter,
    summary: title,
  }));
}

async function groups(): Promise<Candidate[]> {
  const { readFile } = await import("node:fs/promises");
  return plain((await readFile("/etc/group", "utf8")).split("\n").map((line) => line.split(":")[0]!).filter(Boolean));
}

const paths = [
  "",
  "certificates",
  "events",
  "images",
  "instances",
  "operations",
  "profiles",
  "storage-pools",
  "warnings",
];

/** By the name of an argument or of an option's value. */
const byName: Readonly<Record<string, Source>> = {
  "alias": aliases,
  "certificate": () => files,
  "columns": columns,
  "device": devices,
  "device,key=value": deviceOverride,
  "driver": drivers,
  "file": () => files,
  "fingerprint": fingerprints,
  "format": () => plain(formats),
  "image": images,
  "instance": instances,
  "key": setKeys,
  "key=value": keyValues,
  "operation": operations,
  "path": () => files,
  "pool": pools,
  "pool/volume": poolAndVolume,
  "profile": profiles,
  "profiles": profileList,
  "rootfs or key=value": () => files,
  "session": sessions,
  "shell": () => plain(["bash", "zsh", "fish"]),
  "snapshot": none,
  "source": () => files,
  "target": () => files,
  "type": deviceTypes,
  "volume": volumes,
  "volume/path": volumeAndFile,
};

/** Exceptions: verbs in which the name means something else. */
const byVerb: Readonly<Record<string, Source>> = {
  "admin init device": () => files,
  "admin recover pool": none,
  "config get instance or key": async (place) => [...await instances(place), ...await setServerKeys(place)],
  "config get key": async (place) => plain(Object.keys(await keysOf(place.client, "instance"))),
  "config set instance or key=value": async (place) => {
    if (place.args.length === 0 && !place.text.includes("=")) {
      return [...await instances(place), ...await settings(place, await serverKeys(place))];
    }
    const isServer = place.args.length === 0 || /[.=]/.test(place.args[0]!);
    return await settings(place, isServer ? await serverKeys(place) : await keysOf(place.client, "instance"));
  },
  "config unset instance or key": async (place) => [...await instances(place), ...await setServerKeys(place)],
  "config show instance": instancesAndSnapshots,
  "copy instance": instancesAndSnapshots,
  "daemon name": groups,
  "delete instance": instancesAndSnapshots,
  "image alias create alias": none,
  "list filter": instances,
  "move instance": instancesAndSnapshots,
  "profile create profile": none,
  "profile get key": async (place) => plain(Object.keys(await keysOf(place.client, "instance"))),
  "query path": ({ client: _ }) => plain(paths.map((path) => path === "" ? "/1.0" : `/1.0/${path}`)),
  "rename instance": instancesAndSnapshots,
  "restore snapshot": instanceSnapshots,
  "storage create pool": none,
  "storage get key": async (place) => plain(Object.keys(await possibleKeys(place))),
  "storage volume create volume": none,
  "storage volume get key": async (place) => plain(Object.keys(await possibleKeys(place))),
  "storage volume attach path": none,
  "storage volume attach-profile path": none,
  "storage volume import volume": none,
  "storage volume restore snapshot": volumeSnapshots,
};

async function setServerKeys({ client }: Place): Promise<Candidate[]> {
  return plain(Object.keys((await client.get<Server>("/1.0")).config));
}

/** @param name Of an argument or of an option's value. @returns All candidates: the caller filters them by what was typed. */
export async function wordsFor(name: string, place: Place): Promise<Candidates> {
  const own = `${place.verb.words} ${name}`;
  const source = Object.hasOwn(byVerb, own) ? byVerb[own] : Object.hasOwn(byName, name) ? byName[name] : undefined;
  return await (source ?? none)(place);
}
