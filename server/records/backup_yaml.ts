import { stringify } from "yaml";
import { z } from "zod";
import { LidoError, messageOf } from "../../api/errors.ts";
import { refusal } from "../../api/refusal.ts";
import type { Config, Devices } from "../../api/types.ts";
import { parseHostileYaml } from "../archives/hostile_yaml.ts";
import type { Expanded, InstanceRecord, SnapshotRecord } from "../instances/table.ts";

/** `backup.yaml`, beside the root filesystem of each instance: the database's content about it in LXD 5.0's format, so that each program
 * can recover the other's instances. */

/** Zero times of Go and of Unix, which mean "never". */
const noTime = "0001-01-01T00:00:00Z", unixZero = "1970-01-01T00:00:00Z";

export interface PoolInfo {
  readonly name: string;
  readonly driver: string;
  readonly description: string;
  readonly config: Config;
}

export interface ProfileInfo {
  readonly name: string;
  readonly description: string;
  readonly config: Config;
  readonly devices: Devices;
}

export interface InstanceBackup {
  readonly instance: Omit<InstanceRecord, "id">;
  readonly expanded: Expanded;
  readonly snapshots: readonly { readonly snapshot: Omit<SnapshotRecord, "id">; readonly expanded: Expanded }[];
  /** Absent in files of an older LXD. */
  readonly pool?: PoolInfo;
  readonly profiles: readonly ProfileInfo[];
  readonly volumeConfig: Config;
}

export function writeBackup(backup: InstanceBackup): string {
  const { instance, expanded, snapshots, pool, profiles, volumeConfig } = backup;
  const state = { status: "Stopped", status_code: 102 };
  const volume = { used_by: [], location: "none", content_type: "filesystem", project: "default" };
  return stringify({
    container: {
      architecture: instance.architecture,
      config: instance.config,
      devices: instance.devices,
      ephemeral: instance.ephemeral,
      profiles: instance.profiles,
      stateful: false,
      description: instance.description,
      created_at: instance.createdAt,
      expanded_config: expanded.config,
      expanded_devices: expanded.devices,
      name: instance.name,
      ...state,
      last_used_at: instance.lastUsedAt ?? unixZero,
      location: "none",
      type: "container",
      project: "default",
    },
    ...(snapshots.length === 0 ? {} : {
      snapshots: snapshots.map(({ snapshot, expanded }) => ({
        architecture: instance.architecture,
        config: snapshot.config,
        created_at: snapshot.createdAt,
        expires_at: snapshot.expiresAt ?? noTime,
        devices: snapshot.devices,
        ephemeral: instance.ephemeral,
        expanded_config: expanded.config,
        expanded_devices: expanded.devices,
        last_used_at: noTime,
        name: snapshot.name,
        profiles: snapshot.profiles,
        stateful: false,
        size: -1,
      })),
    }),
    ...(pool ? { pool: { ...pool, used_by: [], status: "Created", locations: ["none"] } } : {}),
    profiles: profiles.map((profile) => ({ ...profile, used_by: [] })),
    volume: {
      config: volumeConfig,
      description: "",
      name: instance.name,
      type: "container",
      ...volume,
      created_at: noTime,
    },
    ...(snapshots.length === 0 ? {} : {
      volume_snapshots: snapshots.map(({ snapshot }) => ({
        description: "",
        expires_at: snapshot.expiresAt ?? noTime,
        name: snapshot.name,
        config: volumeConfig,
        content_type: "filesystem",
        created_at: snapshot.createdAt,
      })),
    }),
  }, { aliasDuplicateObjects: false, lineWidth: 0 });
}

/** Whether two texts differ only in keys that a start or stop changes and that recovery does not need (the runtime knows a running container's map):
 * then the file is not written again. */
export function isSameBackup(one: string, other: string): boolean {
  const lasting = (text: string) =>
    text.replaceAll(/^\s*(volatile\.(last_state\.power|idmap\.current)|last_used_at): .*\n/gm, "");
  return lasting(one) === lasting(other);
}

const nothing = <T extends object>(value: T | null | undefined): T => value ?? {} as T;
const config = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]).transform(String)).nullish()
  .transform(nothing);
const devices = z.record(z.string(), config).nullish().transform(nothing);
export const time = z.union([z.string(), z.date()]).nullish().transform(validTime);
const profiles = z.array(z.string()).nullish().transform((value) => value ?? []);
const parts = { config, devices, profiles, created_at: time, expanded_config: config, expanded_devices: devices };
const instance = z.object({
  ...parts,
  name: z.string(),
  architecture: z.string().default(""),
  description: z.string().default(""),
  ephemeral: z.boolean().default(false),
  last_used_at: time,
  type: z.string().default("container"),
});
const schema = z.object({
  container: instance.nullish(),
  instance: instance.nullish(),
  snapshots: z.array(z.object({ ...parts, name: z.string(), expires_at: time })).nullish(),
  pool: z.object({ name: z.string(), driver: z.string(), description: z.string().default(""), config }).nullish(),
  profiles: z.array(z.object({ name: z.string(), description: z.string().default(""), config, devices })).nullish(),
  volume: z.object({ config }).nullish(),
});

/** @throws {LidoError} bad_request with the reason. */
export function parseBackup(text: string): InstanceBackup {
  const value = checkedYaml(text, schema, "backup.yaml");
  const own = value.container ?? value.instance;
  if (!own) throw new LidoError("bad_request", "backup.yaml: it has neither a container nor an instance");
  if (own.type !== "container") throw new LidoError("bad_request", `backup.yaml: type "${own.type}" is not supported`);
  return {
    instance: {
      name: own.name,
      architecture: own.architecture,
      description: own.description,
      ephemeral: own.ephemeral,
      config: own.config,
      devices: own.devices,
      profiles: own.profiles,
      createdAt: own.created_at ?? new Date().toISOString(),
      ...(own.last_used_at && own.last_used_at > "1970-01-02" ? { lastUsedAt: own.last_used_at } : {}),
    },
    expanded: { config: own.expanded_config, devices: own.expanded_devices },
    snapshots: (value.snapshots ?? []).map((one) => ({
      snapshot: {
        // LXD's snapshot names begin with the instance's name.
        name: one.name.startsWith(`${own.name}/`) ? one.name.slice(own.name.length + 1) : one.name,
        createdAt: one.created_at ?? new Date().toISOString(),
        ...(one.expires_at ? { expiresAt: one.expires_at } : {}),
        config: one.config,
        devices: one.devices,
        profiles: one.profiles,
      },
      expanded: { config: one.expanded_config, devices: one.expanded_devices },
    })),
    ...(value.pool ? { pool: value.pool } : {}),
    profiles: value.profiles ?? [],
    volumeConfig: value.volume?.config ?? {},
  };
}

/** Parses YAML that may be damaged or hostile: aliases are not allowed, and the content is checked by `schema`.
 * @throws {LidoError} bad_request, beginning with `file`. */
export function checkedYaml<Schema extends z.ZodType>(text: string, schema: Schema, file: string): z.infer<Schema> {
  let value: unknown;
  try {
    value = parseHostileYaml(text, { aliasesMax: 0 });
  } catch (error) {
    throw new LidoError("bad_request", `${file}: ${messageOf(error).split("\n")[0]}`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { field, reason } = refusal(result.error, value);
  throw new LidoError("bad_request", `${file}: ${field || "content"}: ${reason}`);
}

function validTime(value: string | Date | null | undefined): string | undefined {
  const time = value ? new Date(value) : undefined;
  return time && !Number.isNaN(time.getTime()) && time.getUTCFullYear() >= 1970 ? time.toISOString() : undefined;
}
