import { z } from "zod";

/** Snapshots of several volumes, all or none, at one moment: API extension `storage_volumes_snapshot_group`. */
export const snapshotGroupPostSchema = z.object({
  /** Of every snapshot that is made. */
  name: z.string(),
  volumes: z.array(z.object({ pool: z.string(), name: z.string() })).min(1).max(1000),
  /** By each volume's `snapshots.expiry` when absent or null. */
  expires_at: z.string().nullish(),
}).meta({ id: "SnapshotGroupPost" });
export type SnapshotGroupPost = z.infer<typeof snapshotGroupPostSchema>;
