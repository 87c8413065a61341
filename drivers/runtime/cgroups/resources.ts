import { existsSync } from "node:fs";
import type { CgroupLayout } from "./cgroup.ts";
import { devicesOf } from "../container_devices.ts";
import { memoryBytesV1 } from "./limits.ts";
import type { ContainerSpec, Limits } from "../runtime.ts";

/** Allowed devices, which crun writes into the v1 cgroup; v2 cgroups are confined before. `limits.ts` writes the limits before crun starts. Those of
 * memory are written once more by crun, which gives a v1 cgroup the host's before it moves a process into it. The device list is for every container:
 * a user namespace keeps its root from creating a node of the host's disk, not from opening one that an image contains by mistake.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups */
export function ociResources(spec: Pick<ContainerSpec, "devices" | "limits">, layout: CgroupLayout): object {
  if (layout === "unified") return {};
  const devices = devicesOf(spec).map((rule) => ({ allow: true, ...rule }));
  return { devices: [{ allow: false, access: "rwm" }, ...devices], ...memoryOf(spec.limits) };
}

function memoryOf(limits: Limits | undefined): object {
  const { limit, withSwap } = limits ? memoryBytesV1(limits) : {};
  if (limit === undefined) return {};
  // The kernel may not count swap.
  const isCounted = withSwap !== undefined && existsSync("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
  return { memory: { limit: Number(limit), ...(isCounted ? { swap: Number(withSwap) } : {}) } };
}
