import { stringify } from "yaml";
import { z } from "zod";
import { LidoError, messageOf } from "../../api/errors.ts";
import { refusal } from "../../api/refusal.ts";
import type { Config } from "../../api/types.ts";
import { parseHostileYaml } from "../archives/hostile_yaml.ts";
import { checkName } from "../store/names.ts";

/** `backup/index.yaml`, as LXD 5.0.2 writes it into a backup of a custom volume, and reads it from one. */
export interface BackupIndex {
  readonly name: string;
  readonly pool: string;
  readonly driver: string;
  /** Whether the content is in the driver's own format. */
  readonly optimized: boolean;
  readonly volume: { readonly config: Config; readonly description: string };
  /** The oldest first. */
  readonly snapshots: readonly BackupSnapshot[];
}

export interface BackupSnapshot {
  readonly name: string;
  readonly config: Config;
  readonly description: string;
  readonly createdAt: string;
  readonly expiresAt: string | null;
}

/** Go's zero time, which means none. */
const noTime = "0001-01-01T00:00:00Z";
const config = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]).transform(String)).nullish()
  .transform((value) => value ?? {});
const time = z.union([z.string(), z.date()]).nullish().transform((value) => value ? new Date(value) : undefined);
const schema = z.object({
  name: z.string(),
  pool: z.string().default(""),
  backend: z.string().default(""),
  type: z.string().default("custom"),
  optimized: z.boolean().default(false),
  snapshots: z.array(z.string()).nullish(),
  config: z.object({
    volume: z.object({ config, description: z.string().default(""), content_type: z.string().default("filesystem") }),
    volume_snapshots: z.array(z.object({
      name: z.string(),
      config,
      description: z.string().default(""),
      created_at: time,
      expires_at: time,
    })).nullish(),
  }),
});

/** @throws {LidoError} bad_request with what is wrong. */
export function parseIndex(text: string): BackupIndex {
  const invalid = (why: string) => new LidoError("bad_request", `Invalid backup: index.yaml: ${why}`);
  let value: unknown;
  try {
    value = parseHostileYaml(text);
  } catch (error) {
    throw invalid(messageOf(error).split("\n")[0]!);
  }
  const result = schema.safeParse(value);
  if (!result.success) {
    const { field, reason } = refusal(result.error, value);
    throw invalid(`${field || "content"}: ${reason}`);
  }
  const { name, pool, backend, type, optimized, snapshots, config: { volume, volume_snapshots } } = result.data;
  if (type !== "custom") throw invalid(`type "${type}" is no custom volume's`);
  if (volume.content_type !== "filesystem") throw invalid(`content type "${volume.content_type}" is not supported`);
  const known = new Map((volume_snapshots ?? []).map((one) => [one.name, one]));
  const names = snapshots ?? [...known.keys()];
  for (const snapshot of names) checkName("Storage volume snapshot", snapshot);
  if (new Set(names).size !== names.length) throw invalid("a snapshot is there twice");
  return {
    name,
    pool,
    driver: backend,
    optimized,
    volume,
    snapshots: names.map((snapshot) => {
      const one = known.get(snapshot);
      return {
        name: snapshot,
        config: one?.config ?? {},
        description: one?.description ?? "",
        createdAt: valid(one?.created_at) ?? new Date().toISOString(),
        expiresAt: valid(one?.expires_at) ?? null,
      };
    }),
  };
}

function valid(time: Date | undefined): string | undefined {
  return time && !Number.isNaN(time.getTime()) && time.getUTCFullYear() >= 1970 ? time.toISOString() : undefined;
}

export function writeIndex(index: BackupIndex): string {
  return stringify({
    name: index.name,
    backend: index.driver,
    pool: index.pool,
    snapshots: index.snapshots.map(({ name }) => name),
    optimized: index.optimized,
    optimized_header: index.optimized,
    type: "custom",
    config: {
      volume: {
        config: index.volume.config,
        description: index.volume.description,
        name: index.name,
        type: "custom",
        used_by: [],
        location: "none",
        content_type: "filesystem",
        project: "default",
        created_at: noTime,
      },
      volume_snapshots: index.snapshots.map((one) => ({
        description: one.description,
        expires_at: one.expiresAt ?? noTime,
        name: one.name,
        config: one.config,
        content_type: "filesystem",
        created_at: one.createdAt,
      })),
    },
  });
}
