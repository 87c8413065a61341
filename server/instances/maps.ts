import type { IdMap } from "../../drivers/runtime/runtime.ts";
import type { Config } from "../../api/types.ts";
import { isTrue } from "./config_keys.ts";
import { formatIdmap, type HostRanges, isolatedSize, parseIdmap, planIdmap, type TakenRange } from "./idmaps.ts";
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
    const { map, base } = planIdmap(config, ranges, this.#taken(name), current > 0 ? current : undefined);
    return {
      ...(map ? { map } : {}),
      volatile: { "volatile.idmap.base": String(base), "volatile.idmap.next": formatIdmap(map) },
    };
  }

  /** Ranges of the other isolated instances: what they will have, and what those that run have until they stop. */
  #taken(name: string): TakenRange[] {
    const records = this.#records.list();
    const taken: TakenRange[] = [];
    for (const [index, { config }] of this.#records.expandAll(records).entries()) {
      const other = records[index]!;
      if (other.name === name) continue;
      if (isTrue(config["security.idmap.isolated"]) && !isTrue(config["security.privileged"])) {
        taken.push({ base: Number(config["volatile.idmap.base"] ?? 0), size: isolatedSize(config) });
      }
      if (this.#services.runtime.get(other.name)) {
        for (const line of parseIdmap(config["volatile.idmap.current"])?.uid ?? []) {
          taken.push({ base: line.host, size: line.count });
        }
      }
    }
    return taken;
  }
}
