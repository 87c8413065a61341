/** The first schema. Config, devices and properties are JSON objects of strings; times are ISO 8601 in UTC. */
export const initial = `
CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE certificates (
  fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, certificate TEXT NOT NULL, created_at TEXT NOT NULL
) STRICT;

CREATE TABLE storage_pools (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, description TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL, config TEXT NOT NULL DEFAULT '{}'
) STRICT;

CREATE TABLE storage_volumes (
  id INTEGER PRIMARY KEY, pool_id INTEGER NOT NULL REFERENCES storage_pools (id), project TEXT NOT NULL DEFAULT 'default',
  type TEXT NOT NULL, name TEXT NOT NULL, content_type TEXT NOT NULL DEFAULT 'filesystem', description TEXT NOT NULL DEFAULT '',
  created_at TEXT NOT NULL, config TEXT NOT NULL DEFAULT '{}', UNIQUE (pool_id, type, project, name)
) STRICT;

CREATE TABLE storage_volume_snapshots (
  id INTEGER PRIMARY KEY, volume_id INTEGER NOT NULL REFERENCES storage_volumes (id) ON DELETE CASCADE, name TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '', created_at TEXT NOT NULL, expires_at TEXT, config TEXT NOT NULL DEFAULT '{}',
  UNIQUE (volume_id, name)
) STRICT;

CREATE TABLE images (
  id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, filename TEXT NOT NULL, size INTEGER NOT NULL, type TEXT NOT NULL,
  architecture TEXT NOT NULL, public INTEGER NOT NULL DEFAULT 0, cached INTEGER NOT NULL DEFAULT 0,
  auto_update INTEGER NOT NULL DEFAULT 0, properties TEXT NOT NULL DEFAULT '{}', profiles TEXT NOT NULL DEFAULT '["default"]',
  created_at TEXT NOT NULL, expires_at TEXT, uploaded_at TEXT NOT NULL, last_used_at TEXT
) STRICT;

CREATE TABLE image_aliases (
  name TEXT PRIMARY KEY, description TEXT NOT NULL DEFAULT '', image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT;

CREATE TABLE profiles (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT NOT NULL DEFAULT '', config TEXT NOT NULL DEFAULT '{}',
  devices TEXT NOT NULL DEFAULT '{}'
) STRICT;
INSERT INTO profiles (name, description) VALUES ('default', 'Default lido profile');

CREATE TABLE instances (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, type TEXT NOT NULL DEFAULT 'container', architecture TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '', ephemeral INTEGER NOT NULL DEFAULT 0, stateful INTEGER NOT NULL DEFAULT 0,
  config TEXT NOT NULL DEFAULT '{}', devices TEXT NOT NULL DEFAULT '{}', profiles TEXT NOT NULL DEFAULT '[]',
  created_at TEXT NOT NULL, last_used_at TEXT
) STRICT;

CREATE TABLE instance_snapshots (
  id INTEGER PRIMARY KEY, instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE, name TEXT NOT NULL,
  created_at TEXT NOT NULL, expires_at TEXT, stateful INTEGER NOT NULL DEFAULT 0, config TEXT NOT NULL DEFAULT '{}',
  devices TEXT NOT NULL DEFAULT '{}', profiles TEXT NOT NULL DEFAULT '[]', UNIQUE (instance_id, name)
) STRICT;

-- Open intents: what is being made or taken away right now. Empty whenever the daemon is idle.
CREATE TABLE journal (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL, created_at TEXT NOT NULL
) STRICT;
`;
