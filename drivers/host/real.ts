import { confined, pipe, run, which } from "./command.ts";
import type { Host } from "./host.ts";
import { HostLoops } from "./loop.ts";
import { HostMounts } from "./mounts.ts";
import { HostProjectQuotas } from "./project_quota.ts";

/** The host this process runs on. */
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
