import type { Devices } from "../../api/types.ts";
import type { Database } from "../state/database.ts";

/** The users of pools and volumes, as URLs; read in a fixed number of queries, however many pools and volumes there are. */
export interface Usage {
  ofPool(pool: string): string[];
  /** @param volume Name of a custom volume. */
  ofVolume(pool: string, volume: string): string[];
}

interface Named {
  readonly pool: string;
  readonly name: string;
}

/** Updates the devices of instances and profiles after a custom volume was renamed or moved; within a transaction. Snapshots of instances keep
 * their devices, as in LXD. */
export function followVolume(database: Database, from: Named, to: Named): void {
  for (const table of ["instances", "profiles"]) {
    for (const row of database.all(`SELECT id, devices FROM ${table}`)) {
      const devices = JSON.parse(String(row.devices)) as Devices;
      let isChanged = false;
      for (const device of Object.values(devices)) {
        const [volume, ...path] = (device.source ?? "").split("/");
        if (device.type !== "disk" || device.pool !== from.pool || volume !== from.name) continue;
        Object.assign(device, { pool: to.pool, source: [to.name, ...path].join("/") });
        isChanged = true;
      }
      if (isChanged) database.run(`UPDATE ${table} SET devices = ? WHERE id = ?`, JSON.stringify(devices), row.id!);
    }
  }
}

export function readUsage(database: Database): Usage {
  const pools = new Map<string, Set<string>>(), volumes = new Map<string, Set<string>>();
  const add = (map: Map<string, Set<string>>, key: string, url: string) => {
    const urls = map.get(key);
    if (urls) urls.add(url);
    else map.set(key, new Set([url]));
  };
  const addDevices = (devices: Devices, url: string) => {
    for (const device of Object.values(devices)) {
      if (device.type !== "disk" || !device.pool) continue;
      add(pools, device.pool, url);
      // A source with a path within a volume uses the volume, too.
      if (device.source) add(volumes, `${device.pool}/${device.source.split("/")[0]}`, url);
    }
  };
  const profileDevices = new Map<string, Devices>();
  for (const row of database.all("SELECT name, devices FROM profiles")) {
    const devices = JSON.parse(String(row.devices)) as Devices;
    profileDevices.set(String(row.name), devices);
    addDevices(devices, `/1.0/profiles/${row.name}`);
  }
  for (const row of database.all("SELECT name, devices, profiles FROM instances")) {
    const fromProfiles = (JSON.parse(String(row.profiles)) as string[]).map((name) => profileDevices.get(name) ?? {});
    addDevices(Object.assign({}, ...fromProfiles, JSON.parse(String(row.devices))), `/1.0/instances/${row.name}`);
  }
  const rows = database.all(
    `SELECT storage_pools.name AS pool, type, storage_volumes.name AS name FROM storage_volumes
     JOIN storage_pools ON storage_pools.id = pool_id`,
  );
  for (const { pool, type, name } of rows) {
    if (type === "custom") add(pools, String(pool), `/1.0/storage-pools/${pool}/volumes/custom/${name}`);
    else add(pools, String(pool), type === "image" ? `/1.0/images/${name}` : `/1.0/instances/${name}`);
  }
  const sorted = (urls: Set<string> | undefined) => [...urls ?? []].sort();
  return {
    ofPool: (pool) => sorted(pools.get(pool)),
    ofVolume: (pool, volume) => sorted(volumes.get(`${pool}/${volume}`)),
  };
}
