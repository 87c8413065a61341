import { z } from "zod";
import { configSchema, devicesSchema, nullableConfig, nullableDevices } from "./config.ts";

export const instanceSchema = z.object({
  name: z.string(),
  description: z.string(),
  status: z.string(),
  status_code: z.number().int(),
  type: z.enum(["container", "virtual-machine"]),
  architecture: z.string(),
  config: configSchema,
  devices: devicesSchema,
  expanded_config: configSchema,
  expanded_devices: devicesSchema,
  profiles: z.array(z.string()),
  ephemeral: z.boolean(),
  stateful: z.boolean(),
  created_at: z.string(),
  last_used_at: z.string(),
  location: z.string(),
  project: z.string(),
}).meta({ id: "Instance" });
export type Instance = z.infer<typeof instanceSchema>;

/** How an instance last ended. */
export const instanceExitSchema = z.object({
  at: z.string(),
  /** Exit code of its init; null when a signal ended it, or when it is not known. */
  exit_code: z.number().int().nullable(),
  /** Number of the signal that ended its init. */
  signal: z.number().int().nullable(),
  /** Exit code or signal in words, such as "with exit code 1". */
  description: z.string(),
  /** The likely cause; empty when nothing is wrong or when it is not known. */
  cause: z.string(),
  /** The last lines of its console without control characters; empty when nothing is wrong. */
  console: z.array(z.string()),
}).meta({ id: "InstanceExit" });
export type InstanceExit = z.infer<typeof instanceExitSchema>;

export const instanceStateSchema = z.object({
  status: z.string(),
  status_code: z.number().int(),
  pid: z.number().int(),
  processes: z.number().int(),
  cpu: z.object({ usage: z.number() }),
  memory: z.object({ usage: z.number(), usage_peak: z.number(), swap_usage: z.number(), swap_usage_peak: z.number() }),
  disk: z.record(z.string(), z.object({ usage: z.number(), total: z.number() })).nullable(),
  network: z.record(z.string(), z.unknown()).nullable(),
  /** Extension instance_last_exit; null when it has never ended. */
  last_exit: instanceExitSchema.nullish(),
}).meta({ id: "InstanceState" });
export type InstanceState = z.infer<typeof instanceStateSchema>;

export const instanceSnapshotSchema = z.object({
  name: z.string(),
  created_at: z.string(),
  expires_at: z.string(),
  stateful: z.boolean(),
}).loose().meta({ id: "InstanceSnapshot" });
export type InstanceSnapshot = z.infer<typeof instanceSnapshotSchema>;

export const instanceFullSchema = instanceSchema.extend({
  state: instanceStateSchema.nullable(),
  snapshots: z.array(instanceSnapshotSchema).nullable(),
  backups: z.array(z.unknown()).nullable(),
}).meta({ id: "InstanceFull" });
export type InstanceFull = z.infer<typeof instanceFullSchema>;

export const instancesPostSchema = z.object({
  name: z.string().default(""),
  description: z.string().default(""),
  architecture: z.string().default(""),
  type: z.string().default(""),
  profiles: z.array(z.string()).nullish(),
  config: nullableConfig,
  devices: nullableDevices,
  ephemeral: z.boolean().default(false),
  stateful: z.boolean().default(false),
  source: z.object({
    type: z.string().default(""),
    alias: z.string().default(""),
    fingerprint: z.string().default(""),
    properties: configSchema.nullish(),
    source: z.string().default(""),
    instance_only: z.boolean().default(false),
  }).loose(),
  start: z.boolean().default(false),
}).loose().meta({ id: "InstancesPost" });
export type InstancesPost = z.infer<typeof instancesPostSchema>;

export const instancePutSchema = z.object({
  architecture: z.string().default(""),
  config: nullableConfig,
  devices: nullableDevices,
  description: z.string().default(""),
  ephemeral: z.boolean().default(false),
  profiles: z.array(z.string()).nullish(),
  restore: z.string().default(""),
  stateful: z.boolean().default(false),
}).loose().meta({ id: "InstancePut" });
export type InstancePut = z.infer<typeof instancePutSchema>;

export const instancePostSchema = z.object({ name: z.string() }).loose().meta({ id: "InstancePost" });

export const instanceStatePutSchema = z.object({
  action: z.enum(["start", "stop", "restart", "freeze", "unfreeze"]),
  /** Seconds; negative means no limit. */
  timeout: z.number().int().default(-1),
  force: z.boolean().default(false),
  stateful: z.boolean().default(false),
}).loose().meta({ id: "InstanceStatePut" });
export type InstanceStatePut = z.infer<typeof instanceStatePutSchema>;
