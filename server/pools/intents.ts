import { LidoError } from "../../api/errors.ts";
import { parseSizeBytes } from "../../api/size.ts";
import type { Config } from "../../api/types.ts";
import type { Driver } from "../../drivers/storage/driver.ts";

/** What the journal holds of a pool that is being made, deleted, found or grown. */

export interface PoolIntent {
  readonly name: string;
  readonly driver: string;
  readonly config: Config;
}

export interface FoundIntent extends PoolIntent {
  /** How the host was before: whether it used the pool's source, and whether its directory was there. */
  readonly wasInUse: boolean;
  readonly wasThere: boolean;
}

export interface GrowIntent {
  readonly name: string;
  /** As the pool's `size`. */
  readonly size: string;
}

/** Finishes what was begun. @returns Whether the pool has that size now: not when it cannot have it, or is larger by a later change. */
export async function growAgain(driver: Driver, size: string): Promise<boolean> {
  try {
    await driver.facets.resize?.grow(parseSizeBytes(size)!);
    return true;
  } catch (error) {
    if (error instanceof LidoError && error.code === "bad_request") return false;
    throw error;
  }
}
