import { LidoError } from "../../api/errors.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { Volume } from "../../drivers/storage/driver.ts";
import type { MountedVolumes } from "./mounted.ts";
import type { Pools } from "./pools.ts";

/** In bytes. */
export interface UsedSpace {
  readonly used: number;
  /** The limit; 0 means none. */
  readonly total: number;
  /** Set when no quota counts the volume, so that its tree was walked. */
  readonly estimated?: boolean;
}

/** Returns the space that a volume or a snapshot uses. */
export async function usedSpace(
  { host, mounts, pools }: { readonly host: Host; readonly mounts: MountedVolumes; readonly pools: Pools },
  pool: string,
  volume: Volume,
): Promise<UsedSpace> {
  const driver = await pools.ready(pool);
  const { quota } = driver.facets;
  const count = async () => {
    const [used, limit] = await Promise.all([quota!.usedBytes(volume), quota!.get(volume)]);
    return { used: Number(used), total: Number(limit ?? 0n) };
  };
  const uncounted = (error: unknown) => {
    if (!(error instanceof LidoError && error.code === "not_implemented")) throw error;
  };
  const counted = quota && await count().catch(uncounted);
  if (counted) return counted;
  await using use = await mounts.use(pool, volume);
  // Some drivers can count only while the volume is mounted.
  const mounted = quota && driver.mountsVolumes ? await count().catch(uncounted) : undefined;
  if (mounted) return mounted;
  const tools = host.confined({ reads: { "/tree": use.path }, capabilities: ["CAP_DAC_READ_SEARCH"] });
  const { stdout } = await tools.run(["du", "-sx", "--block-size=1", "--", "/tree"], { okCodes: [0, 1] });
  return { used: Number(stdout.split("\t")[0]), total: 0, estimated: true };
}
