import { z } from "zod";

/** Snapshots of several volumes, all or none, at one moment: API extension `storage_volumes_snapshot_group`. */
export const snapshotGroupPostSchema = z.object({
  /** Name of every snapshot. */
  name: z.string(),
  volumes: z.array(z.object({ pool: z.string(), name: z.string() })).min(1).max(1000),
  /** Default (absent or null): by each volume's `snapshots.expiry`. */
  expires_at: z.string().nullish(),
}).meta({ id: "SnapshotGroupPost" });
export type SnapshotGroupPost = z.infer<typeof snapshotGroupPostSchema>;
