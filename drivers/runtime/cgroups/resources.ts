import { existsSync } from "node:fs";
import type { CgroupLayout } from "./cgroup.ts";
import { devicesOf } from "../container_devices.ts";
import { memoryBytesV1 } from "./limits.ts";
import type { ContainerSpec, Limits } from "../runtime.ts";

/** Allowed devices, which crun writes into v1's cgroup; v2's are confined before. Limits are written by `limits.ts` before crun is started; those of
 * memory once more by crun, which gives a v1 cgroup the host's before it moves a process into it. The devices are for every container: a user
 * namespace keeps its root from making a node of the host's disk, not from opening one that came with an image by somebody's mistake.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups */
export function ociResources(spec: Pick<ContainerSpec, "devices" | "limits">, layout: CgroupLayout): object {
  if (layout === "unified") return {};
  const devices = devicesOf(spec).map((rule) => ({ allow: true, ...rule }));
  return { devices: [{ allow: false, access: "rwm" }, ...devices], ...memoryOf(spec.limits) };
}

function memoryOf(limits: Limits | undefined): object {
  const { limit, withSwap } = limits ? memoryBytesV1(limits) : {};
  if (limit === undefined) return {};
  // A kernel may count no swap.
  const isCounted = withSwap !== undefined && existsSync("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
  return { memory: { limit: Number(limit), ...(isCounted ? { swap: Number(withSwap) } : {}) } };
}
