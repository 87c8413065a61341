import { z } from "zod";
import { configSchema, devicesSchema, nullableConfig, nullableDevices } from "./config.ts";

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
