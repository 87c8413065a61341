import { z } from "zod";
import { configSchema, nullableConfig } from "./config.ts";

export const storagePoolSchema = z.object({
  name: z.string(),
  driver: z.string(),
  description: z.string(),
  config: configSchema,
  used_by: z.array(z.string()),
  status: z.enum(["Created", "Pending", "Errored", "Unavailable"]),
  locations: z.array(z.string()),
  /** Why the status is not "Created". This and the following fields are ours: LXD's clients ignore them. */
  reason: z.string(),
  /** What its driver can do besides making and deleting volumes. */
  facets: z.array(z.string()),
  /** What the driver cannot do, and why. */
  absent: z.record(z.string(), z.string()),
  /** Whether containers with different id maps can share volumes (`security.shifted`). */
  idmapped_mounts: z.boolean(),
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
/** A PATCH keeps fields that it does not have. */
const keptDescription = { description: z.string().optional() };
export const storagePoolPatchSchema = storagePoolPutSchema.extend(keptDescription).meta({ id: "StoragePoolPatch" });

export const resourcesStoragePoolSchema = z.object({
  space: z.object({ used: z.number(), total: z.number() }),
  inodes: z.object({ used: z.number(), total: z.number() }),
}).meta({ id: "ResourcesStoragePool" });
export type ResourcesStoragePool = z.infer<typeof resourcesStoragePoolSchema>;

export const storagePoolHealthSchema = z.object({ ok: z.boolean(), text: z.string() }).meta({
  id: "StoragePoolHealth",
});
export type StoragePoolHealth = z.infer<typeof storagePoolHealthSchema>;

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
export const storageVolumePatchSchema = storageVolumePutSchema.extend(keptDescription).meta({
  id: "StorageVolumePatch",
});
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

/** An entry of `…/files?path=DIRECTORY&recursion=1`. */
export const fileEntrySchema = z.object({
  name: z.string(),
  type: z.enum(["file", "directory", "symlink", "other"]),
  uid: z.number().int(),
  gid: z.number().int(),
  mode: z.number().int(),
  size: z.number(),
  modified_at: z.string(),
}).meta({ id: "FileEntry" });
export type FileEntry = z.infer<typeof fileEntrySchema>;

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
export const storageVolumeSnapshotPatchSchema = storageVolumeSnapshotPutSchema.extend(keptDescription).meta({
  id: "StorageVolumeSnapshotPatch",
});
