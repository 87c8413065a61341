import { z } from "zod";
import { configSchema, nullableConfig } from "./config.ts";

/** LXD's shapes, which its own client `lxd recover` sends and reads; what is only ours says so. */
export const recoverPoolSchema = z.object({
  name: z.string(),
  /** Absent for a pool that is known. */
  driver: z.string().default(""),
  description: z.string().default(""),
  config: nullableConfig,
}).loose();
export type RecoverPool = z.input<typeof recoverPoolSchema>;

export const recoverPostSchema = z.object({
  pools: z.array(recoverPoolSchema).nullish().transform((pools) => pools ?? []),
  /** Ours: also what an operation was taking away or changing when it was cut off. */
  force: z.boolean().default(false),
  /** Ours: delete the unpacked copies of images that are not known; they are made again when they are needed. */
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
  /** Ours: what will not be as it was. */
  notes: z.array(z.string()),
});
export type RecoverVolume = z.infer<typeof recoverVolumeSchema>;

export const recoverResultSchema = z.object({
  UnknownVolumes: z.array(recoverVolumeSchema),
  DependencyErrors: z.array(z.string()),
  /** Ours: what is there and cannot be recovered, and why. */
  Problems: z.array(z.string()),
  /** Ours: copies of images that are not known, as "pool/fingerprint". */
  UnknownImages: z.array(z.string()),
}).meta({ id: "RecoverResult" });
export type RecoverResult = z.infer<typeof recoverResultSchema>;

export const foundPoolSchema = z.object({
  name: z.string(),
  driver: z.string(),
  /** As much as says where it is. */
  config: configSchema,
}).meta({ id: "FoundPool" });
export type FoundPool = z.infer<typeof foundPoolSchema>;
