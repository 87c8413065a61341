import type { Config } from "../../api/types.ts";

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
