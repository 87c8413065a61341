/** Key order of lxc's output: fields in the order of LXD's structures, maps of settings sorted. */

const orders = {
  storagePool: ["config", "description", "name", "driver", "used_by", "status", "locations"],
  storageVolume: [
    "config",
    "description",
    "name",
    "type",
    "used_by",
    "location",
    "content_type",
    "project",
    "created_at",
  ],
  storageVolumeSnapshot: ["description", "expires_at", "name", "config", "content_type", "created_at"],
  image: [
    "auto_update",
    "properties",
    "public",
    "expires_at",
    "profiles",
    "aliases",
    "architecture",
    "cached",
    "filename",
    "fingerprint",
    "size",
    "update_source",
    "type",
    "created_at",
    "last_used_at",
    "uploaded_at",
  ],
  imageAlias: ["description", "target", "name", "type"],
  profile: ["config", "description", "devices", "name", "used_by"],
  instancePut: ["architecture", "config", "devices", "ephemeral", "profiles", "restore", "stateful", "description"],
  instance: [
    "architecture",
    "config",
    "devices",
    "ephemeral",
    "profiles",
    "stateful",
    "description",
    "created_at",
    "expanded_config",
    "expanded_devices",
    "name",
    "status",
    "status_code",
    "last_used_at",
    "location",
    "type",
    "project",
    "backups",
    "state",
    "snapshots",
  ],
  instanceSnapshot: [
    "expires_at",
    "architecture",
    "config",
    "created_at",
    "devices",
    "ephemeral",
    "expanded_config",
    "expanded_devices",
    "last_used_at",
    "name",
    "profiles",
    "stateful",
    "size",
  ],
  fileEntry: ["name", "type", "uid", "gid", "mode", "size", "modified_at"],
  checkProblem: ["subject", "problem", "can_repair", "repaired"],
  certificate: ["name", "type", "restricted", "projects", "certificate", "fingerprint"],
  execSession: [
    "id",
    "instance",
    "command",
    "interactive",
    "status",
    "attached",
    "return",
    "created_at",
    "ended_at",
  ],
  operation: [
    "id",
    "class",
    "description",
    "created_at",
    "updated_at",
    "status",
    "status_code",
    "resources",
    "metadata",
    "may_cancel",
    "err",
    "location",
  ],
  server: [
    "config",
    "api_extensions",
    "api_status",
    "api_version",
    "auth",
    "public",
    "auth_methods",
    "environment",
  ],
} as const;
export type Kind = keyof typeof orders;

/** Fields whose value is a map of settings and is sorted by key. */
const maps = new Set([
  "config",
  "devices",
  "expanded_config",
  "expanded_devices",
  "properties",
  "metadata",
  "resources",
]);

function sorted(value: unknown): unknown {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  const entries = Object.entries(value).sort(([left], [right]) => left < right ? -1 : left > right ? 1 : 0);
  return Object.fromEntries(entries.map(([key, item]) => [key, sorted(item)]));
}

/** The object with its keys in LXD's order; keys that LXD does not have come last. */
export function ordered(kind: Kind, thing: object): Record<string, unknown> {
  const order: readonly string[] = orders[kind];
  const source = thing as Record<string, unknown>;
  const keys = [...order.filter((key) => key in source), ...Object.keys(source).filter((key) => !order.includes(key))];
  return Object.fromEntries(keys.map((key) => [key, maps.has(key) ? sorted(source[key]) : source[key]]));
}
