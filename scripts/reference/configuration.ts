/** The page of the configuration keys, from the tables that the daemon checks them with. */
import type { ConfigKey, DriverKind } from "../../drivers/storage/driver.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { deviceKeys } from "../../server/config/devices.ts";
import { instanceKeys, otherInstanceKeys } from "../../server/config/instance.ts";
import { volumeKeys } from "../../server/config/storage.ts";
import { describe } from "../../server/metadata/configuration.ts";
import { settingKeys } from "../../server/state/settings.ts";
import { byFirst, code, page, paragraph, table } from "./markdown.ts";

type Keys = Readonly<Record<string, ConfigKey>>;

function typeOf(key: ConfigKey): string {
  const { type, values } = describe(key);
  if (type === "bool" && key.values === undefined) return "boolean";
  if (values !== undefined) return values.map(code).join(", ");
  const takes = (value: string) => key.check(value) === undefined;
  // A name may be any word.
  const isSize = (takes("64KiB") || takes("64MiB")) && !takes("12x");
  return type === "string" && isSize ? "size" : type;
}

function liveness({ fixed, effect }: ConfigKey): string {
  if (fixed) return "no: at creation only";
  return effect === undefined ? "yes" : `no: ${effect}`;
}

/** A default is a value, or in words what holds without one. */
const defaultOf = ({ default: value = "" }: ConfigKey) => value === "" || value.includes(" ") ? value : code(value);

function keyTable(keys: Keys): string {
  const rows = Object.entries(keys).map(([name, key]) => [
    code(name),
    typeOf(key),
    defaultOf(key),
    liveness(key),
    key.help,
  ]);
  return table(["Key", "Type", "Default", "Live", "What it is"], byFirst(rows));
}

const helpTable = (keys: Readonly<Record<string, Pick<ConfigKey, "help">>>, suffix = "") =>
  table(["Key", "What it is"], byFirst(Object.entries(keys).map(([name, { help }]) => [code(name + suffix), help])));

const groupsOf = (keys: Keys) => Object.entries(Object.groupBy(Object.entries(keys), ([name]) => name.split(".")[0]!));

function instance(): string[] {
  const { prefixes, volatile } = otherInstanceKeys;
  return [
    "## Instances and profiles",
    paragraph(
      "A profile takes the same keys as an instance, except those that begin with `image.` or `volatile.`. An instance has " +
        "its own keys, and for the rest those of its profiles, of which the last one counts.",
    ),
    ...groupsOf(instanceKeys()).sort(([left], [right]) => left < right ? -1 : 1)
      .flatMap(([group, keys]) => [`### ${group}`, keyTable(Object.fromEntries(keys!))]),
    "### Keys with names of the user's own",
    helpTable(prefixes, "*"),
    "### Keys of the daemon's own",
    "The daemon writes these keys; a client may send them back as they are.",
    helpTable(volatile),
  ];
}

function devices(): string[] {
  return [
    "## Devices",
    paragraph(
      "A device of an instance or a profile has a `type` and the keys of that type. A disk of a running instance that is " +
        "changed is detached and attached again.",
    ),
    ...Object.entries(deviceKeys()).flatMap(([type, keys]) => [
      `### ${type}`,
      Object.keys(keys).length > 0
        ? keyTable(keys)
        : `No keys: takes the place of a device of that name in a profile, which the instance then does not have.`,
    ]),
  ];
}

function pools(kinds: readonly DriverKind[]): string[] {
  return [
    "## Storage pools",
    paragraph(
      "Besides these a pool has `user.*` for the user's own notes, and `volume.KEY` for every key of its volumes: new " +
        "volumes have it unless they are given their own.",
    ),
    ...kinds.flatMap(({ name, poolKeys }) => [`### Pools of ${name}`, keyTable(poolKeys)]),
  ];
}

function volumes(kinds: readonly DriverKind[]): string[] {
  const [first] = kinds;
  const common = Object.fromEntries(
    Object.entries(volumeKeys(first!)).filter(([name]) => !Object.hasOwn(first!.volumeKeys, name)),
  );
  const own = kinds.filter(({ volumeKeys }) => Object.keys(volumeKeys).length > 0);
  const none = kinds.filter((kind) => !own.includes(kind)).map(({ name }) => name);
  return [
    "## Storage volumes",
    `Besides these a volume has \`user.*\` for the user's own notes.`,
    "### Volumes of every driver",
    keyTable(common),
    ...own.flatMap(({ name, volumeKeys, isBlock }) => [
      `### Volumes of ${name}`,
      ...(isBlock ? ["A volume is a block device: where no `size` is set it has the driver's default."] : []),
      keyTable(volumeKeys),
    ]),
    `Volumes of ${none.join(" and ")} have no keys of their own.`,
  ];
}

export function configurationPage(): string {
  const kinds = [...driverKinds.values()].sort((left, right) => left.name < right.name ? -1 : 1);
  return page(
    "Configuration keys",
    paragraph(
      "Every key that the daemon takes; it refuses all others. A size is a number with a unit, such as `10GiB`; a boolean " +
        "is `true` or `false` (also 1, yes, on, 0, no, off). _Live_ tells whether a change takes effect at once, and if " +
        "not, when: with the instance's next start, with the volume's next mount, or when the pool is opened the next " +
        "time. The daemon describes its keys by `GET /1.0/metadata/configuration`.",
    ),
    "## Server",
    keyTable(settingKeys()),
    ...instance(),
    ...devices(),
    ...pools(kinds),
    ...volumes(kinds),
  );
}
