import { confined, pipe, run, which } from "./tools/command.ts";
import type { Host } from "./host.ts";
import { HostLoops } from "./devices/loop.ts";
import { HostMounts } from "./mounts/mounts.ts";
import { HostProjectQuotas } from "./quota/project_quota.ts";

/** The host that this process runs on. */
export function createHost(): Host {
  return {
    run,
    pipe,
    confined,
    which,
    mounts: new HostMounts(),
    loops: new HostLoops(),
    quotas: new HostProjectQuotas(),
  };
}
