import type { Config, Devices, Instance, InstanceSnapshot, Server } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { deviceVerbs, thereAre } from "../device_verbs.ts";
import { change, type Configurable, pick, settingsOf, settingVerbs, showYaml } from "../settings.ts";
import { type Verb, verb } from "../verb.ts";
import { verbs as trust } from "./config_trust.ts";

export const instances: Configurable = {
  words: "config",
  args: ["instance"],
  noun: "instance",
  kind: "instancePut",
  writable: ["architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"],
  path: ([name = ""]) => url`/1.0/instances/${name}`,
};

const server: Configurable = {
  words: "config",
  args: [],
  noun: "daemon",
  kind: "server",
  writable: ["config"],
  path: () => "/1.0",
};

const shownOfInstance = ["architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"];

/** A verb that without an instance applies to the daemon. @param ofInstance Whether the words name an instance. */
function eitherVerb(name: string, args: readonly string[], ofInstance: (words: readonly string[]) => boolean): Verb {
  const [one, other] = [instances, server].map((what) =>
    settingVerbs(what).find((candidate) => candidate.words === `config ${name}`)!
  );
  return {
    ...one!,
    args,
    summary: one!.summary.replace(/of an instance/, "$& or of the daemon"),
    run: (io, words, flags) => (ofInstance(words) ? one! : other!).run(io, words, flags),
  };
}

export const verbs: Verb[] = [
  verb({
    words: "config show",
    args: ["instance?"],
    flags: { expanded: { short: "e", summary: "With what comes from the profiles" } },
    summary: "Show the configuration of an instance, of its snapshot (INSTANCE/SNAPSHOT) or of the daemon",
    async run(io, [name], flags) {
      if (name === undefined) {
        const { config } = await io.client.get<Server>("/1.0");
        return await showYaml(io, "server", { config });
      }
      const [, of, snapshot] = /^([^/]+)\/(.+)$/.exec(name) ?? [];
      if (of !== undefined && snapshot !== undefined) {
        const seen = await io.client.get<InstanceSnapshot>(url`/1.0/instances/${of}/snapshots/${snapshot}`);
        const { expanded_config: config, expanded_devices: devices } = seen;
        return await showYaml(io, "instanceSnapshot", { ...seen, ...(flags.expanded ? { config, devices } : {}) });
      }
      const instance = await io.client.get<Instance>(instances.path([name]));
      const { expanded_config: config, expanded_devices: devices } = instance;
      await showYaml(io, "instancePut", {
        ...pick(instance, shownOfInstance),
        ...(flags.expanded ? { config, devices } : {}),
      });
    },
  }),
  eitherVerb("get", ["instance or key", "key?"], (words) => words.length > 1),
  eitherVerb("unset", ["instance or key", "key?"], (words) => words.length > 1),
  eitherVerb("set", ["instance or key=value+"], ([first = ""]) => !first.includes("=") && !first.includes(".")),
  eitherVerb("edit", ["instance?"], (words) => words.length > 0),
  ...deviceVerbs(instances),
  verb({
    words: "config device override",
    args: ["instance", "device", "key=value..."],
    flags: {},
    summary: "Copy a profile's device to the instance, with other keys",
    async run(io, [name = "", device = "", ...settings]) {
      const keys = settingsOf(settings);
      await change(io, instances, [name], (thing) => {
        const { devices = {}, expanded_devices: expanded = {} } = thing as {
          config: Config;
          devices?: Devices;
          expanded_devices?: Devices;
        };
        if (devices[device]) throw new UsageError(`The device already exists: ${JSON.stringify(device)}`);
        if (!expanded[device]) {
          const names = thereAre(Object.keys(expanded));
          throw new UsageError(`The profile device doesn't exist: ${JSON.stringify(device)}: ${names}`);
        }
        return { devices: { ...devices, [device]: { ...expanded[device], ...keys } } };
      });
      if (!io.quiet) io.out(`Device ${device} overridden for ${name}\n`);
    },
  }),
  ...trust,
];
