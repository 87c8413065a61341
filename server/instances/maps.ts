import { messageOf } from "../../api/errors.ts";
import type { IdMap } from "../../drivers/runtime/runtime.ts";
import type { Config } from "../../api/types.ts";
import { isTrue } from "./config_keys.ts";
import {
  formatIdmap,
  type HostRanges,
  isolatedSize,
  parseIdmap,
  parseRawIdmap,
  planIdmap,
  sharedRanges,
  type TakenRange,
} from "./idmaps.ts";
import type { InstanceServices } from "./ports.ts";
import type { InstanceRecords } from "./records.ts";

/** The id maps of all instances together: who has which range. */
export class Maps {
  readonly #services: InstanceServices;
  readonly #records: InstanceRecords;

  constructor(services: InstanceServices, records: InstanceRecords) {
    this.#services = services;
    this.#records = records;
  }

  ranges(): Promise<HostRanges> {
    return this.#services.ids.ranges();
  }

  /** Works out the map for a configuration. Runs in one go with the write that records it, so that no two instances get one range.
   * @param ranges From `ranges()`, read before.
   * @returns The `volatile.idmap.*` keys that say so. @throws {LidoError} bad_request. */
  plan(name: string, config: Config, ranges: HostRanges): { map?: IdMap; volatile: Config } {
    const current = Number(config["volatile.idmap.base"] ?? 0);
    const { map, base } = planIdmap(config, ranges, this.#taken(name, ranges), current > 0 ? current : undefined);
    return {
      ...(map ? { map } : {}),
      volatile: { "volatile.idmap.base": String(base), "volatile.idmap.next": formatIdmap(map) },
    };
  }

  /** Works out every instance's next map anew: the ranges of the host, or the rules of an earlier version, may have been others. What runs
   * keeps its map until its next start. Runs before anything starts, for instances that share a volume must agree. */
  async renew(): Promise<void> {
    const ranges = await this.ranges();
    for (const { name } of this.#records.list()) {
      try {
        this.#services.database.transaction(() => {
          const { config } = this.#records.expand(this.#records.get(name));
          const { volatile } = this.plan(name, config, ranges);
          if (Object.entries(volatile).every(([key, value]) => config[key] === value)) return;
          this.#records.setConfig(name, volatile);
        });
      } catch (error) {
        // It keeps the map that it has.
        this.#services.log.warn({ instance: name, error: messageOf(error) }, "cannot renew an instance's id map");
      }
    }
  }

  /** Host ids of the other instances: what they will have, and what those that run have until they stop; the shared map is left out. */
  #taken(name: string, ranges: HostRanges): TakenRange[] {
    const shared = sharedRanges(ranges).uid;
    const records = this.#records.list();
    const taken: TakenRange[] = [];
    for (const [index, { config }] of this.#records.expandAll(records).entries()) {
      const other = records[index]!;
      if (other.name === name || isTrue(config["security.privileged"])) continue;
      if (isTrue(config["security.idmap.isolated"])) {
        taken.push({ base: Number(config["volatile.idmap.base"] ?? 0), size: isolatedSize(config) });
      }
      for (const { host, count } of parseRawIdmap(config["raw.idmap"] ?? "")) {
        taken.push({ base: host, size: count, isRaw: true });
      }
    }
    for (const { name: other, config } of records) {
      if (other === name || !this.#services.runtime.get(other)) continue;
      for (const { container, host, count } of parseIdmap(config["volatile.idmap.current"])?.uid ?? []) {
        if (host - container !== shared.start) taken.push({ base: host, size: count });
      }
    }
    return taken;
  }
}
