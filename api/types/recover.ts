import { z } from "zod";
import { configSchema, nullableConfig } from "./config.ts";

/** LXD's shapes, which its client `lxd recover` sends and reads; lido's own fields are marked "Ours". */
export const recoverPoolSchema = z.object({
  name: z.string(),
  /** Absent for a pool that is in the database. */
  driver: z.string().default(""),
  description: z.string().default(""),
  config: nullableConfig,
}).loose();
export type RecoverPool = z.input<typeof recoverPoolSchema>;

export const recoverPostSchema = z.object({
  pools: z.array(recoverPoolSchema).nullish().transform((pools) => pools ?? []),
  /** Ours: also recovers what an interrupted operation was deleting or changing. */
  force: z.boolean().default(false),
  /** Ours: deletes unpacked copies of unknown images; they are made again when they are needed. */
  drop_images: z.boolean().default(false),
}).loose().meta({ id: "RecoverPost" });
export type RecoverPost = z.infer<typeof recoverPostSchema>;

export const recoverVolumeSchema = z.object({
  name: z.string(),
  /** "container", or "volume" for a custom one. */
  type: z.string(),
  snapshotCount: z.number().int(),
  project: z.string(),
  pool: z.string(),
  /** Ours: what will differ after the recovery. */
  notes: z.array(z.string()),
});
export type RecoverVolume = z.infer<typeof recoverVolumeSchema>;

export const recoverResultSchema = z.object({
  UnknownVolumes: z.array(recoverVolumeSchema),
  DependencyErrors: z.array(z.string()),
  /** Ours: what cannot be recovered, and why. */
  Problems: z.array(z.string()),
  /** Ours: unpacked copies of unknown images, as "pool/fingerprint". */
  UnknownImages: z.array(z.string()),
}).meta({ id: "RecoverResult" });
export type RecoverResult = z.infer<typeof recoverResultSchema>;

export const foundPoolSchema = z.object({
  name: z.string(),
  driver: z.string(),
  /** Only the keys that say where the pool is. */
  config: configSchema,
}).meta({ id: "FoundPool" });
export type FoundPool = z.infer<typeof foundPoolSchema>;
