import { messageOf } from "../../api/errors.ts";
import type { IdMap } from "../../drivers/host/id_map.ts";
import type { Config } from "../../api/types.ts";
import { isTrue } from "../config/instance.ts";
import {
  formatIdmap,
  type HostRanges,
  isolatedSize,
  parseIdmap,
  planIdmap,
  sharedRanges,
  type TakenRange,
} from "../ids/idmaps.ts";
import type { InstanceServices } from "./services.ts";
import type { InstanceTable } from "./table.ts";

/** Assigns id maps to instances, and knows which host ids are taken. */
export class IdmapAllocator {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;

  constructor(services: InstanceServices, records: InstanceTable) {
    this.#services = services;
    this.#records = records;
  }

  ranges(): Promise<HostRanges> {
    return this.#services.ids.ranges();
  }

  /** Computes the map for a configuration. Must run synchronously with the write that records it, so that no two instances get the same range.
   * @param ranges From `ranges()`, read before.
   * @returns The map, and the `volatile.idmap.*` keys that record it. @throws {LidoError} bad_request. */
  plan(name: string, config: Config, ranges: HostRanges): { map?: IdMap; volatile: Config } {
    return plan(config, ranges, () => [...this.#taken(ranges)].flatMap(([other, own]) => other === name ? [] : own));
  }

  /** Computes every instance's next map again: the host's ranges, or an earlier version's rules, may have differed. A running container keeps its map
   * until its next start. Called before any instance is started, because instances that share a volume must agree. */
  async renew(): Promise<void> {
    const ranges = await this.ranges();
    const records = this.#records.list();
    const taken = this.#taken(ranges);
    this.#services.database.transaction(() => {
      const all = this.#records.expandAll(records).map(({ config }, index) => ({ name: records[index]!.name, config }));
      // Instances with the shared map first: their earlier ranges must not block those of isolated ones.
      const own = all.filter(({ config }) => isIsolated(config));
      for (const { name, config } of [...all.filter((each) => !own.includes(each)), ...own]) {
        try {
          const { volatile } = plan(
            config,
            ranges,
            () => [...taken].flatMap(([other, own]) => other === name ? [] : own),
          );
          if (Object.entries(volatile).every(([key, value]) => config[key] === value)) continue;
          this.#records.setConfig(name, volatile);
          taken.set(name, this.#takenBy(name, { ...config, ...volatile }, ranges));
        } catch (error) {
          // The instance keeps its present map.
          this.#services.log.warn({ instance: name, error: messageOf(error) }, "cannot renew an instance's id map");
        }
      }
    });
  }

  /** Host ids of each instance that no other may get. */
  #taken(ranges: HostRanges): Map<string, TakenRange[]> {
    const records = this.#records.list();
    const expanded = this.#records.expandAll(records);
    return new Map(records.map(({ name }, index) => [name, this.#takenBy(name, expanded[index]!.config, ranges)]));
  }

  /** The ranges of an instance's next map and, while it runs, of its current map; without the shared map. */
  #takenBy(name: string, config: Config, ranges: HostRanges): TakenRange[] {
    const shared = sharedRanges(ranges).uid;
    const lines = (key: string) =>
      (parseIdmap(config[key])?.uid ?? []).filter(({ host, container }) => host - container !== shared.start);
    const hasOwn = isIsolated(config);
    const base = Number(config["volatile.idmap.base"] ?? 0);
    const next = lines("volatile.idmap.next").filter(({ host, container }) => !hasOwn || host - container !== base);
    const current = this.#services.runtime.get(name) ? lines("volatile.idmap.current") : [];
    return [
      ...(hasOwn ? [{ base, size: isolatedSize(config) }] : []),
      ...next.map(({ host, count }) => ({ base: host, size: count, isRaw: true })),
      ...current.map(({ host, count }) => ({ base: host, size: count })),
    ];
  }
}

const isIsolated = (config: Config): boolean =>
  isTrue(config["security.idmap.isolated"]) && !isTrue(config["security.privileged"]);

/** Only an isolated instance or one with `raw.idmap` can collide with other maps; for the rest they are not read. */
const needsTaken = (config: Config): boolean => isIsolated(config) || (config["raw.idmap"] ?? "") !== "";

function plan(
  config: Config,
  ranges: HostRanges,
  taken: () => readonly TakenRange[],
): { map?: IdMap; volatile: Config } {
  const current = Number(config["volatile.idmap.base"] ?? 0);
  const { map, base } = planIdmap(config, ranges, needsTaken(config) ? taken() : [], current > 0 ? current : undefined);
  return {
    ...(map ? { map } : {}),
    volatile: { "volatile.idmap.base": String(base), "volatile.idmap.next": formatIdmap(map) },
  };
}
