/** What crosses the wire: LXD 5.0's shapes. One zod object is the type, the validator and (through `openapi.json`) the document.
 * Requests are strict where LXD refuses unknown fields and lenient (`.loose()`) where clients send fields that lido does not need. */
import { z } from "zod";

export const configSchema = z.record(z.string(), z.string());
/** Clients written in Go send null for an empty map or list. */
const nullableConfig = configSchema.nullish().transform((config) => config ?? {});
export const devicesSchema = z.record(z.string(), configSchema);
const nullableDevices = devicesSchema.nullish().transform((devices) => devices ?? {});
export type Config = z.infer<typeof configSchema>;
export type Devices = z.infer<typeof devicesSchema>;

// Operations

export const operationSchema = z.object({
  id: z.string(),
  class: z.enum(["task", "websocket", "token"]),
  description: z.string(),
  created_at: z.string(),
  updated_at: z.string(),
  status: z.string(),
  status_code: z.number().int(),
  resources: z.record(z.string(), z.array(z.string())),
  metadata: z.record(z.string(), z.unknown()).nullable(),
  may_cancel: z.boolean(),
  err: z.string(),
  location: z.string(),
}).meta({ id: "Operation" });
export type Operation = z.infer<typeof operationSchema>;

export const eventSchema = z.object({
  type: z.enum(["lifecycle", "logging", "operation"]),
  timestamp: z.string(),
  metadata: z.record(z.string(), z.unknown()),
  location: z.string().optional(),
  project: z.string().optional(),
}).meta({ id: "Event" });
export type Event = z.infer<typeof eventSchema>;

// Storage

export const storagePoolSchema = z.object({
  name: z.string(),
  driver: z.string(),
  description: z.string(),
  config: configSchema,
  used_by: z.array(z.string()),
  status: z.enum(["Created", "Pending", "Errored", "Unavailable"]),
  locations: z.array(z.string()),
}).meta({ id: "StoragePool" });
export type StoragePool = z.infer<typeof storagePoolSchema>;

export const storagePoolsPostSchema = z.object({
  name: z.string(),
  driver: z.string(),
  description: z.string().default(""),
  config: nullableConfig,
}).meta({ id: "StoragePoolsPost" });
export type StoragePoolsPost = z.infer<typeof storagePoolsPostSchema>;

export const storagePoolPutSchema = z.object({
  description: z.string().default(""),
  config: nullableConfig,
}).meta({ id: "StoragePoolPut" });

export const resourcesStoragePoolSchema = z.object({
  space: z.object({ used: z.number(), total: z.number() }),
  inodes: z.object({ used: z.number(), total: z.number() }),
}).meta({ id: "ResourcesStoragePool" });
export type ResourcesStoragePool = z.infer<typeof resourcesStoragePoolSchema>;

export const storageVolumeSchema = z.object({
  name: z.string(),
  type: z.enum(["container", "custom", "image", "virtual-machine"]),
  content_type: z.enum(["filesystem", "block"]),
  description: z.string(),
  config: configSchema,
  created_at: z.string(),
  location: z.string(),
  project: z.string(),
  used_by: z.array(z.string()),
}).meta({ id: "StorageVolume" });
export type StorageVolume = z.infer<typeof storageVolumeSchema>;

export const storageVolumesPostSchema = z.object({
  name: z.string(),
  type: z.string().default("custom"),
  content_type: z.string().default("filesystem"),
  description: z.string().default(""),
  config: nullableConfig,
  source: z.object({
    type: z.string().default(""),
    name: z.string().default(""),
    pool: z.string().default(""),
    project: z.string().default(""),
    volume_only: z.boolean().default(false),
    refresh: z.boolean().default(false),
  }).loose().prefault({}),
}).loose().meta({ id: "StorageVolumesPost" });
export type StorageVolumesPost = z.infer<typeof storageVolumesPostSchema>;

export const storageVolumeBackupSchema = z.object({
  name: z.string(),
  created_at: z.string(),
  expires_at: z.string(),
  volume_only: z.boolean(),
  optimized_storage: z.boolean(),
}).meta({ id: "StorageVolumeBackup" });
export type StorageVolumeBackup = z.infer<typeof storageVolumeBackupSchema>;

export const storageVolumeBackupsPostSchema = z.object({
  name: z.string().default(""),
  expires_at: z.string().nullish(),
  volume_only: z.boolean().default(false),
  optimized_storage: z.boolean().default(false),
  /** none, gzip, bzip2, xz or zstd; gzip when empty. */
  compression_algorithm: z.string().default(""),
}).loose().meta({ id: "StorageVolumeBackupsPost" });
export type StorageVolumeBackupsPost = z.infer<typeof storageVolumeBackupsPostSchema>;

export const storageVolumePutSchema = z.object({
  description: z.string().default(""),
  config: nullableConfig,
  restore: z.string().default(""),
}).loose().meta({ id: "StorageVolumePut" });
export type StorageVolumePut = z.infer<typeof storageVolumePutSchema>;

export const storageVolumePostSchema = z.object({
  name: z.string(),
  pool: z.string().default(""),
  project: z.string().default(""),
  migration: z.boolean().default(false),
  volume_only: z.boolean().default(false),
}).loose().meta({ id: "StorageVolumePost" });

export const storageVolumeStateSchema = z.object({
  usage: z.object({ used: z.number(), total: z.number() }).nullable(),
}).meta({ id: "StorageVolumeState" });

export const storageVolumeSnapshotSchema = z.object({
  name: z.string(),
  description: z.string(),
  config: configSchema,
  content_type: z.string(),
  created_at: z.string(),
  expires_at: z.string().nullable(),
}).meta({ id: "StorageVolumeSnapshot" });
export type StorageVolumeSnapshot = z.infer<typeof storageVolumeSnapshotSchema>;

export const storageVolumeSnapshotsPostSchema = z.object({
  name: z.string().default(""),
  expires_at: z.string().nullish(),
}).loose().meta({ id: "StorageVolumeSnapshotsPost" });

export const storageVolumeSnapshotPutSchema = z.object({
  description: z.string().default(""),
  expires_at: z.string().nullish(),
}).loose().meta({ id: "StorageVolumeSnapshotPut" });

// Images

export const imageAliasSchema = z.object({ name: z.string(), description: z.string() });
export const imageSchema = z.object({
  fingerprint: z.string(),
  filename: z.string(),
  size: z.number(),
  type: z.enum(["container", "virtual-machine"]),
  architecture: z.string(),
  public: z.boolean(),
  cached: z.boolean(),
  auto_update: z.boolean(),
  aliases: z.array(imageAliasSchema),
  properties: configSchema,
  profiles: z.array(z.string()),
  created_at: z.string(),
  expires_at: z.string(),
  last_used_at: z.string(),
  uploaded_at: z.string(),
}).meta({ id: "Image" });
export type Image = z.infer<typeof imageSchema>;

export const imagePutSchema = z.object({
  auto_update: z.boolean().default(false),
  public: z.boolean().default(false),
  properties: nullableConfig,
  profiles: z.array(z.string()).nullish(),
  expires_at: z.string().nullish(),
}).loose().meta({ id: "ImagePut" });

export const imageAliasEntrySchema = z.object({
  name: z.string(),
  description: z.string(),
  target: z.string(),
  type: z.string(),
}).meta({ id: "ImageAliasesEntry" });
export type ImageAliasesEntry = z.infer<typeof imageAliasEntrySchema>;

export const imageAliasesPostSchema = z.object({
  name: z.string(),
  description: z.string().default(""),
  target: z.string(),
  type: z.string().default(""),
}).loose().meta({ id: "ImageAliasesPost" });

// Profiles

export const profileSchema = z.object({
  name: z.string(),
  description: z.string(),
  config: configSchema,
  devices: devicesSchema,
  used_by: z.array(z.string()),
}).meta({ id: "Profile" });
export type Profile = z.infer<typeof profileSchema>;

export const profilesPostSchema = z.object({
  name: z.string(),
  description: z.string().default(""),
  config: nullableConfig,
  devices: nullableDevices,
}).loose().meta({ id: "ProfilesPost" });
export type ProfilesPost = z.infer<typeof profilesPostSchema>;

export const profilePutSchema = z.object({
  description: z.string().default(""),
  config: nullableConfig,
  devices: nullableDevices,
}).loose().meta({ id: "ProfilePut" });
export type ProfilePut = z.infer<typeof profilePutSchema>;

// Instances

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

export const instanceStateSchema = z.object({
  status: z.string(),
  status_code: z.number().int(),
  pid: z.number().int(),
  processes: z.number().int(),
  cpu: z.object({ usage: z.number() }),
  memory: z.object({ usage: z.number(), usage_peak: z.number(), swap_usage: z.number(), swap_usage_peak: z.number() }),
  disk: z.record(z.string(), z.object({ usage: z.number(), total: z.number() })).nullable(),
  network: z.record(z.string(), z.unknown()).nullable(),
}).meta({ id: "InstanceState" });
export type InstanceState = z.infer<typeof instanceStateSchema>;

export const instanceSnapshotSchema = z.object({
  name: z.string(),
  created_at: z.string(),
  expires_at: z.string(),
  stateful: z.boolean(),
}).loose().meta({ id: "InstanceSnapshot" });

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
  /** Seconds; negative means as long as it takes. */
  timeout: z.number().int().default(-1),
  force: z.boolean().default(false),
  stateful: z.boolean().default(false),
}).loose().meta({ id: "InstanceStatePut" });
export type InstanceStatePut = z.infer<typeof instanceStatePutSchema>;

export const instanceExecPostSchema = z.object({
  command: z.array(z.string()),
  "wait-for-websocket": z.boolean().default(false),
  interactive: z.boolean().default(false),
  environment: configSchema.nullish().transform((environment) => environment ?? {}),
  width: z.number().int().default(0),
  height: z.number().int().default(0),
  "record-output": z.boolean().default(false),
  user: z.number().int().min(0).max(4294967294).default(0),
  group: z.number().int().min(0).max(4294967294).default(0),
  cwd: z.string().default(""),
  // Beyond LXD: a user of the container's own /etc/passwd, with its home, shell and groups.
  "user-name": z.string().default(""),
  login: z.boolean().default(false),
  /** `group` counts although the user is given by name. */
  "group-set": z.boolean().default(false),
  "wait-output": z.boolean().default(false),
  /** The command goes on without its client, which can come back to it. */
  detachable: z.boolean().default(false),
  /** The command may start while its client still connects. */
  eager: z.boolean().default(false),
}).loose().meta({ id: "InstanceExecPost" });
export type InstanceExecPost = z.infer<typeof instanceExecPostSchema>;

/** What comes over an exec session's control websocket. */
export const execControlSchema = z.union([
  z.object({
    command: z.literal("window-resize"),
    args: z.object({ width: z.string().regex(/^\d{1,5}$/), height: z.string().regex(/^\d{1,5}$/) }),
  }).loose(),
  z.object({ command: z.literal("signal"), signal: z.number().int().min(1).max(64) }).loose(),
  z.object({ command: z.literal("detach") }).loose(),
]).meta({ id: "ExecControl" });

/** A command that was started detachable. */
export const execSessionSchema = z.object({
  id: z.string(),
  instance: z.string(),
  command: z.array(z.string()),
  interactive: z.boolean(),
  /** Ended: its output and exit code wait for a client. Lost: the daemon stopped while it ran, which ended it. */
  status: z.enum(["Running", "Ended", "Lost"]),
  attached: z.boolean(),
  /** The exit code, null while it runs and when nobody knows it. */
  return: z.number().int().nullable(),
  created_at: z.string(),
  ended_at: z.string().nullable(),
}).meta({ id: "ExecSession" });
export type ExecSession = z.infer<typeof execSessionSchema>;

// Check

export const checkPostSchema = z.object({ repair: z.boolean().default(false) }).loose().meta({ id: "CheckPost" });

/** Something in which the database and the host do not agree. */
export const checkProblemSchema = z.object({
  /** A path of the host, or "pool/NAME/TYPE/VOLUME". */
  subject: z.string(),
  problem: z.string(),
  can_repair: z.boolean(),
  repaired: z.boolean(),
}).meta({ id: "CheckProblem" });
export type CheckProblem = z.infer<typeof checkProblemSchema>;

// Certificates

export const certificateSchema = z.object({
  name: z.string(),
  type: z.literal("client"),
  restricted: z.boolean(),
  projects: z.array(z.string()),
  /** PEM. */
  certificate: z.string(),
  /** SHA-256 of its DER, in hex. */
  fingerprint: z.string(),
}).meta({ id: "Certificate" });
export type Certificate = z.infer<typeof certificateSchema>;

export const certificatesPostSchema = z.object({
  name: z.string().max(255).default(""),
  type: z.string().default("client"),
  /** DER in base64, or PEM; the client's own when empty. */
  certificate: z.string().default(""),
  password: z.string().default(""),
  token: z.boolean().default(false),
  restricted: z.boolean().default(false),
}).loose().meta({ id: "CertificatesPost" });

export const certificatePutSchema = z.object({ name: z.string().min(1).max(255).optional() }).loose()
  .meta({ id: "CertificatePut" });

// Server

export const serverSchema = z.object({
  api_extensions: z.array(z.string()),
  api_status: z.string(),
  api_version: z.string(),
  auth: z.enum(["trusted", "untrusted"]),
  public: z.boolean(),
  auth_methods: z.array(z.string()),
  config: z.record(z.string(), z.unknown()),
  environment: z.object({
    addresses: z.array(z.string()),
    architectures: z.array(z.string()),
    certificate: z.string(),
    certificate_fingerprint: z.string(),
    driver: z.string(),
    driver_version: z.string(),
    firewall: z.string(),
    kernel: z.string(),
    kernel_architecture: z.string(),
    kernel_features: z.record(z.string(), z.string()).nullable(),
    kernel_version: z.string(),
    lxc_features: z.record(z.string(), z.string()).nullable(),
    os_name: z.string(),
    os_version: z.string(),
    project: z.string(),
    server: z.string(),
    server_clustered: z.boolean(),
    server_name: z.string(),
    server_pid: z.number().int(),
    server_version: z.string(),
    storage: z.string(),
    storage_version: z.string(),
    storage_supported_drivers: z.array(
      z.object({ Name: z.string(), Version: z.string(), Remote: z.boolean() }).loose(),
    ),
  }).loose(),
}).meta({ id: "Server" });
export type Server = z.infer<typeof serverSchema>;

export const statusCodes = {
  100: "Operation created",
  101: "Started",
  102: "Stopped",
  103: "Running",
  104: "Cancelling",
  105: "Pending",
  106: "Starting",
  107: "Stopping",
  108: "Aborting",
  109: "Freezing",
  110: "Frozen",
  111: "Thawed",
  112: "Error",
  113: "Ready",
  200: "Success",
  400: "Failure",
  401: "Cancelled",
} as const;
export type StatusCode = keyof typeof statusCodes;
