/** The types of events, and the actions of lifecycle events, with LXD's names. The reference is made from this table. */
import type { Event } from "../../api/types.ts";

interface Action {
  readonly help: string;
  /** The fields that `context` may have. */
  readonly context?: readonly string[];
  /** Whether LXD 5.0 has no such action. */
  readonly isOwn?: true;
}

/** The form of a lifecycle event's `source`, by the beginning of its action. */
export const sources = {
  certificate: "/1.0/certificates/FINGERPRINT",
  image: "/1.0/images/FINGERPRINT",
  "image-alias": "/1.0/images/aliases/NAME",
  instance: "/1.0/instances/NAME",
  "instance-snapshot": "/1.0/instances/NAME/snapshots/SNAPSHOT",
  profile: "/1.0/profiles/NAME",
  "storage-pool": "/1.0/storage-pools/NAME",
  "storage-volume": "/1.0/storage-pools/POOL/volumes/TYPE/NAME",
  "storage-volume-snapshot": "/1.0/storage-pools/POOL/volumes/TYPE/NAME/snapshots/SNAPSHOT",
} as const;

const exit = ["exit_code", "signal", "description", "cause"] as const;

export const lifecycleActions = {
  "certificate-created": { help: "A client's certificate is trusted." },
  "certificate-deleted": { help: "A client's certificate is no longer trusted." },
  "certificate-updated": { help: "A certificate has another name." },
  "image-alias-created": { help: "An image has an alias." },
  "image-alias-deleted": { help: "An alias was deleted." },
  "image-created": { help: "An image was imported." },
  "image-deleted": { help: "An image was deleted." },
  "image-updated": { help: "Properties, visibility or expiry of an image were changed." },
  "instance-console": { help: "A client attached to the console.", context: ["type"] },
  "instance-console-reset": { help: "The console's log was emptied." },
  "instance-console-retrieved": { help: "The console's log was read." },
  "instance-created": {
    help: "An instance was created, copied, imported or recovered.",
    context: ["type", "storage-pool"],
  },
  "instance-deleted": { help: "An instance was deleted." },
  "instance-exec": { help: "A command was started in an instance.", context: ["command"] },
  "instance-paused": { help: "An instance was frozen." },
  "instance-renamed": { help: "An instance was renamed; `source` has the new name.", context: ["old_name"] },
  "instance-restarted": { help: "An instance was restarted by a client." },
  "instance-restored": { help: "An instance is what its snapshot was.", context: ["snapshot"] },
  "instance-resumed": { help: "A frozen instance runs again." },
  "instance-shutdown": {
    help: "An instance ended: asked by a client, or by itself. Its context says how, where it ended by itself.",
    context: exit,
  },
  "instance-snapshot-created": { help: "A snapshot of an instance was taken." },
  "instance-snapshot-deleted": { help: "A snapshot of an instance was deleted, or lost by a restore." },
  "instance-snapshot-renamed": { help: "A snapshot of an instance was renamed; `source` has the new name." },
  "instance-snapshot-updated": { help: "The expiry of a snapshot was changed." },
  "instance-started": { help: "An instance was started." },
  "instance-stopped": { help: "An instance was stopped by force." },
  "instance-updated": { help: "The settings of an instance were changed." },
  "profile-created": { help: "A profile was created." },
  "profile-deleted": { help: "A profile was deleted." },
  "profile-renamed": { help: "A profile was renamed; `source` has the new name.", context: ["old_name"] },
  "profile-updated": { help: "The settings of a profile were changed." },
  "storage-pool-created": { help: "A storage pool was created or recovered.", context: ["driver"] },
  "storage-pool-deleted": { help: "A storage pool was deleted." },
  "storage-pool-filling": {
    help: "80, 90 or 95 % (`threshold`) of a thin pool is used: `of` says data or metadata, `percent` how much.",
    context: ["of", "percent", "threshold"],
    isOwn: true,
  },
  "storage-pool-updated": { help: "The settings of a storage pool were changed." },
  "storage-volume-created": { help: "A volume was created, copied or imported.", context: ["type"] },
  "storage-volume-deleted": { help: "A volume was deleted, or moved to another pool.", context: ["type"] },
  "storage-volume-renamed": { help: "A volume was renamed; `source` has the new name.", context: ["old_name"] },
  "storage-volume-restored": { help: "A volume is what its snapshot was.", context: ["snapshot"] },
  "storage-volume-snapshot-created": { help: "A snapshot of a volume was taken." },
  "storage-volume-snapshot-deleted": { help: "A snapshot of a volume was deleted, or lost by a restore." },
  "storage-volume-snapshot-renamed": { help: "A snapshot of a volume was renamed; `source` has the new name." },
  "storage-volume-updated": {
    help: "The settings or the content (refresh) of a volume were changed.",
    context: ["type"],
  },
} as const satisfies Readonly<Record<string, Action>>;

export type LifecycleAction = keyof typeof lifecycleActions;

type FieldsOf<A> = A extends { readonly context: readonly (infer Field extends string)[] } ? Field : never;
/** The context that an event of the action may have. */
export type LifecycleContext<A extends LifecycleAction> = {
  readonly [Field in FieldsOf<(typeof lifecycleActions)[A]>]?: unknown;
};

export const eventTypes: Readonly<Record<Event["type"], string>> = {
  lifecycle:
    "What happened to something that the API serves. `metadata` has `action`, `source` (the thing's URL) and `context`.",
  logging:
    "What the daemon logs, at every level. `metadata` has `level`, `message` and `context`, whose values are texts.",
  operation:
    "A background operation began, has news, or ended. `metadata` is the operation, as `GET /1.0/operations/ID`.",
};
