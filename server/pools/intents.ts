import { LidoError } from "../../api/errors.ts";
import { parseSizeBytes } from "../../api/size.ts";
import type { Config } from "../../api/types.ts";
import type { Driver } from "../../drivers/storage/driver.ts";

/** Payloads of the intents of pools: creation, deletion, finding, growth. */

export interface PoolIntent {
  readonly name: string;
  readonly driver: string;
  readonly config: Config;
}

export interface FoundIntent extends PoolIntent {
  /** State of the host before: whether the pool's source was in use, and whether its directory existed. */
  readonly wasInUse: boolean;
  readonly wasThere: boolean;
}

export interface GrowIntent {
  readonly name: string;
  /** As the pool's `size`. */
  readonly size: string;
}

/** Completes an interrupted growth. @returns Whether the pool has that size now: false when it cannot have it, or is larger by a later change. */
export async function growAgain(driver: Driver, size: string): Promise<boolean> {
  try {
    await driver.facets.resize?.grow(parseSizeBytes(size)!);
    return true;
  } catch (error) {
    if (error instanceof LidoError && error.code === "bad_request") return false;
    throw error;
  }
}
