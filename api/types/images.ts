import { z } from "zod";
import { configSchema, nullableConfig } from "./config.ts";

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
