import { z } from "zod";

/** Something that needs a person's attention; LXD's shape. */
export const warningSchema = z.object({
  uuid: z.string(),
  location: z.string(),
  project: z.string(),
  type: z.string(),
  severity: z.enum(["low", "moderate", "high"]),
  status: z.string(),
  /** How often it occurred. */
  count: z.int(),
  first_seen_at: z.string(),
  last_seen_at: z.string(),
  last_message: z.string(),
  entity_url: z.string(),
}).meta({ id: "Warning" });
export type Warning = z.infer<typeof warningSchema>;
