import type { ContainerSpec } from "./runtime.ts";

/** Limits and allowed devices, which the runtime writes into the cgroups.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups */
export function ociResources(spec: ContainerSpec, privileged: boolean): object {
  const { memoryBytes, processes, cpus } = spec.limits ?? {};
  return {
    ...(memoryBytes === undefined ? {} : { memory: { limit: Number(memoryBytes) } }),
    ...(processes === undefined ? {} : { pids: { limit: processes } }),
    ...(cpus === undefined ? {} : { cpu: { cpus } }),
    // Nobody in a user namespace can make a device node; root on the host's ids could.
    ...(privileged
      ? {
        devices: [{ allow: false, access: "rwm" }, ...["c", "b"].map((type) => ({ allow: true, type, access: "m" }))],
      }
      : {}),
  };
}
