import { btrfsKind } from "./btrfs/kind.ts";
import { dirKind } from "./dir/kind.ts";
import type { DriverKind } from "./driver.ts";
import { lvmKind } from "./lvm/kind.ts";
import { zfsKind } from "./zfs/kind.ts";

/** Every driver kind, by the name that users give. The only place that knows these names. */
export const driverKinds: ReadonlyMap<string, DriverKind> = new Map(
  [dirKind, btrfsKind, lvmKind, zfsKind].map((kind) => [kind.name, kind]),
);
