import { stringify } from "yaml";
import { z } from "zod";
import type { Config } from "../../api/types.ts";
import { checkedYaml, type PoolInfo, time } from "./backup_yaml.ts";

/** The records of custom volumes and of pools. LXD has none: a custom volume's settings, and the names of its snapshots, are lost there with the
 * database. */

export interface VolumeRecord {
  /** Without its project. */
  readonly name: string;
  readonly description: string;
  readonly createdAt?: string;
  readonly config: Config;
  /** The oldest first. */
  readonly snapshots: readonly {
    readonly name: string;
    readonly description: string;
    readonly createdAt: string;
    readonly expiresAt: string | null;
    readonly config: Config;
  }[];
}

/** Values are quoted where YAML would not take them for text. */
const options = { aliasDuplicateObjects: false, lineWidth: 0 };
const config = z.record(z.string(), z.string()).default({});
const volumeSchema = z.object({
  name: z.string(),
  description: z.string().default(""),
  created_at: time,
  config,
  snapshots: z.array(z.object({
    name: z.string(),
    description: z.string().default(""),
    created_at: time,
    expires_at: time,
    config,
  })).default([]),
});
const poolSchema = z.object({ name: z.string(), driver: z.string(), description: z.string().default(""), config });

export function writeVolumeRecord(record: VolumeRecord): string {
  return stringify({
    name: record.name,
    description: record.description,
    created_at: record.createdAt,
    config: record.config,
    snapshots: record.snapshots.map((one) => ({
      name: one.name,
      description: one.description,
      created_at: one.createdAt,
      ...(one.expiresAt === null ? {} : { expires_at: one.expiresAt }),
      config: one.config,
    })),
  }, options);
}

/** @param file For messages. @throws {LidoError} bad_request with the reason. */
export function parseVolumeRecord(text: string, file: string): VolumeRecord {
  const { created_at, snapshots, ...rest } = checkedYaml(text, volumeSchema, file);
  return {
    ...rest,
    ...(created_at ? { createdAt: created_at } : {}),
    snapshots: snapshots.map(({ created_at, expires_at, ...one }) => ({
      ...one,
      createdAt: created_at ?? new Date().toISOString(),
      expiresAt: expires_at ?? null,
    })),
  };
}

export function writePoolRecord(pool: PoolInfo): string {
  return stringify({ ...pool }, options);
}

/** @param file For messages. @throws {LidoError} bad_request with the reason. */
export function parsePoolRecord(text: string, file: string): PoolInfo {
  return checkedYaml(text, poolSchema, file);
}
