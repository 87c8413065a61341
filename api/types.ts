/** Types of the API: LXD 5.0's shapes, a file for each noun. One zod object is the type, the validator and (through `openapi.json`) the
 * document. Requests are strict where LXD refuses unknown fields and lenient (`.loose()`) where clients send fields that lido does not need. */
export { type Config, configSchema, type Devices, devicesSchema } from "./types/config.ts";
export * from "./types/certificates.ts";
export * from "./types/check.ts";
export * from "./types/console.ts";
export * from "./types/exec.ts";
export * from "./types/images.ts";
export * from "./types/instances.ts";
export * from "./types/metadata.ts";
export * from "./types/operations.ts";
export * from "./types/profiles.ts";
export * from "./types/recover.ts";
export * from "./types/server.ts";
export * from "./types/snapshot_groups.ts";
export * from "./types/storage.ts";
export * from "./types/warnings.ts";
