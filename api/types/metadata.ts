import { z } from "zod";

/** The description of one configuration key. */
const keySchema = z.object({
  type: z.enum(["bool", "integer", "string"]),
  defaultdesc: z.string(),
  shortdesc: z.string(),
  /** The allowed values, where they can be listed. */
  values: z.array(z.string()).optional(),
});
export type KeyMetadata = z.infer<typeof keySchema>;

/** The configuration keys that the daemon accepts, in the shape of later LXDs: thing, group, and for each key one object with the key's name. */
export const configurationMetadataSchema = z.object({
  configs: z.record(
    z.string(),
    z.record(z.string(), z.object({ keys: z.array(z.record(z.string(), keySchema)) })),
  ),
}).meta({ id: "ConfigurationMetadata" });
export type ConfigurationMetadata = z.infer<typeof configurationMetadataSchema>;
