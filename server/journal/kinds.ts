/** The kinds of intents: the work while one is open, and the state after its `settle`. The reference is made from this table;
 * docs/operations.md says for each kind what is checked before. */

interface Kind {
  /** The work while it is open. */
  readonly work: string;
  /** The state after a failure, or at the daemon's start after it was killed. */
  readonly settled: string;
}

export const intentKinds = {
  "image.delete": { work: "An image is being deleted", settled: "The image is deleted." },
  "image.import": {
    work: "An image is being imported",
    settled: "The image's file is deleted, unless it was there before.",
  },
  "instance.create": {
    work: "An instance is being created or copied",
    settled: "The instance and its volume are deleted.",
  },
  "instance.delete": {
    work: "An instance is being deleted",
    settled: "The instance is deleted, with its volume, snapshots and logs.",
  },
  "instance.hotplug": {
    work: "Disks of a running instance are being attached or detached",
    settled: "The instance has the disks that its settings say.",
  },
  "instance.rename": {
    work: "An instance is being renamed",
    settled: "The instance, its volume and its logs have the old name.",
  },
  "instance.resize": {
    work: "The size of an instance's root disk is being changed",
    settled: "The root disk has the size that the instance's settings say.",
  },
  "instance.restore": {
    work: "An instance is being restored from a snapshot",
    settled: "After a failure: the old settings. After a kill: the restore is completed.",
  },
  "instance.restored": {
    work: "An instance was restored; what the restore put aside is being deleted",
    settled: "The rest is deleted, and the root disk has its limit.",
  },
  "instance.shift": {
    work: "The owners of a root filesystem are being changed to another id map",
    settled: "After a failure: the owners of before. After a kill: the change is completed.",
  },
  "instance.snapshot": {
    work: "A snapshot of an instance is being taken or deleted",
    settled: "The snapshot is deleted.",
  },
  "instance.snapshot.rename": {
    work: "A snapshot of an instance is being renamed",
    settled: "The snapshot has the old name.",
  },
  "pool.create": {
    work: "A storage pool is being created",
    settled: "The pool is detached, and what was made of it is deleted.",
  },
  "pool.delete": { work: "A storage pool is being deleted", settled: "The pool is deleted." },
  "pool.find": {
    work: "An unknown storage pool is open for recovery",
    settled: "The pool is closed again, unless it is known by then.",
  },
  "pool.grow": { work: "A storage pool is being grown", settled: "The pool has the new size." },
  "profile.update": {
    work: "A profile is being changed, and the instances that use it",
    settled: "The profile and its instances are as before.",
  },
  "volume.create": {
    work: "A volume is being created, copied, imported or unpacked",
    settled: "The volume and its snapshots are deleted.",
  },
  "volume.delete": {
    work: "A volume is being deleted, or the source of a move",
    settled: "The volume is deleted, with its snapshots.",
  },
  "volume.limit": {
    work: "Size or settings of a volume are being changed",
    settled: "The volume has the limit and the settings that the database says.",
  },
  "volume.refresh": {
    work: "A volume is being refreshed from another",
    settled: "Before the exchange the volume is as before; after it the refresh is completed.",
  },
  "volume.rename": { work: "A volume is being renamed", settled: "The volume has the old name." },
  "volume.shift": {
    work: "The owners of a volume are being changed to another id map",
    settled: "After a failure: the owners of before. After a kill: the change is completed.",
  },
  "volume-snapshot.create": { work: "A snapshot of a volume is being taken", settled: "The snapshot is deleted." },
  "volume-snapshot.delete": { work: "A snapshot of a volume is being deleted", settled: "The snapshot is deleted." },
  "volume-snapshot.group": {
    work: "Snapshots of several volumes are being taken at one moment",
    settled: "The filesystems are thawed, and all these snapshots are deleted.",
  },
  "volume-snapshot.rename": {
    work: "A snapshot of a volume is being renamed",
    settled: "The snapshot has the old name.",
  },
  "volume-snapshot.restore": {
    work: "A volume is being restored from a snapshot",
    settled: "Once snapshots were lost, or the owners differ, the restore is completed; else the content stays.",
  },
} as const satisfies Readonly<Record<string, Kind>>;

export type IntentKind = keyof typeof intentKinds;
