import type { Config, StoragePool } from "../../api/types.ts";
import type { Driver } from "../../drivers/storage/driver.ts";
import type { Row } from "../state/database.ts";

/** A pool as the API shows it: LXD's fields, and what its driver can and cannot do. */

export interface PoolFailure {
  readonly status: "Errored" | "Unavailable";
  readonly reason: string;
}

/** @param driver Undefined when the pool is not open. */
export function viewPool(
  row: Row,
  usedBy: string[],
  driver: Driver | undefined,
  failure: PoolFailure | undefined,
): StoragePool {
  return {
    config: JSON.parse(String(row.config)),
    description: String(row.description),
    name: String(row.name),
    driver: String(row.driver),
    used_by: usedBy,
    status: failure?.status ?? "Created",
    locations: ["none"],
    reason: failure?.reason ?? "",
    facets: Object.keys(driver?.facets ?? {}).sort(),
    absent: { ...driver?.absent } as Record<string, string>,
    idmapped_mounts: driver?.idmappedMounts ?? false,
  };
}

export function unmadePool(
  pool: { name: string; driver: string; config: Config; isActive: boolean },
): StoragePool {
  const { name, driver, config, isActive } = pool;
  return {
    config,
    description: "",
    name,
    driver,
    used_by: [],
    status: isActive ? "Pending" : "Errored",
    locations: ["none"],
    reason: isActive ? "it is being made" : "its creation was cut off and could not be undone yet; delete it",
    facets: [],
    absent: {},
    idmapped_mounts: false,
  };
}
