import { z } from "zod";

export const configSchema = z.record(z.string(), z.string());
/** Clients written in Go send null for an empty map or list. */
export const nullableConfig = configSchema.nullish().transform((config) => config ?? {});
export const devicesSchema = z.record(z.string(), configSchema);
export const nullableDevices = devicesSchema.nullish().transform((devices) => devices ?? {});
export type Config = z.infer<typeof configSchema>;
export type Devices = z.infer<typeof devicesSchema>;
