import type { Host } from "../../drivers/host/host.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";

export interface SupportedDriver {
  readonly Name: string;
  readonly Version: string;
  readonly Remote: boolean;
}

export interface MissingDriver {
  readonly Name: string;
  /** What is missing and how to get it. */
  readonly Reason: string;
  /** Debian packages that contain it. */
  readonly Packages: readonly string[];
}

/** Which drivers work on this host, and why others do not. */
export async function probeDrivers(host: Host): Promise<{ supported: SupportedDriver[]; missing: MissingDriver[] }> {
  const all = await Promise.all(
    [...driverKinds.values()].map(async (kind) => ({ kind, probed: await kind.probe(host) })),
  );
  return {
    supported: all.flatMap(({ kind, probed }) =>
      "version" in probed ? [{ Name: kind.name, Version: probed.version, Remote: false }] : []
    ),
    missing: all.flatMap(({ kind, probed }) =>
      "missing" in probed ? [{ Name: kind.name, Reason: probed.missing, Packages: kind.packages }] : []
    ),
  };
}
