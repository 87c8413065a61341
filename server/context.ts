import type { Logger } from "pino";
import type { Host } from "../drivers/host/host.ts";
import type { Runtime } from "../drivers/runtime/runtime.ts";
import type { Events } from "./events/events.ts";
import type { Trust } from "./auth/trust.ts";
import type { Check } from "./check/check.ts";
import type { ConsoleService } from "./exec/console.ts";
import type { ExecService } from "./exec/exec.ts";
import type { ExecSessions } from "./exec/sessions.ts";
import type { ResourceView } from "./guests/resource_view.ts";
import type { Images } from "./images/images.ts";
import type { Instances } from "./instances/instances.ts";
import type { Journal } from "./journal/journal.ts";
import type { Operations } from "./operations/operations.ts";
import type { Paths } from "./paths.ts";
import type { Profiles } from "./profiles/profiles.ts";
import type { ServerSettings } from "./state/settings.ts";
import type { Recover } from "./recover/recover.ts";
import type { Records } from "./records/records.ts";
import type { Database } from "./state/database.ts";
import type { MountedVolumes } from "./pools/mounted.ts";
import type { PoolWatch } from "./pools/watch.ts";
import type { Pools } from "./pools/pools.ts";
import type { VolumeBackups } from "./backups/backups.ts";
import type { VolumeCopies } from "./copies/copies.ts";
import type { SnapshotGroups } from "./snapshots/groups.ts";
import type { VolumeSnapshots } from "./snapshots/snapshots.ts";
import type { Volumes } from "./volumes/volumes.ts";

/** Every service of the daemon, built once in `main.ts` in the order of their dependencies. */
export interface Context {
  readonly paths: Paths;
  readonly log: Logger;
  readonly database: Database;
  readonly explain: (error: unknown) => unknown;
  readonly journal: Journal;
  readonly events: Events;
  readonly operations: Operations;
  readonly settings: ServerSettings;
  readonly host: Host;
  readonly runtime: Runtime;
  readonly pools: Pools;
  readonly volumes: Volumes;
  readonly mounts: MountedVolumes;
  readonly poolWatch: PoolWatch;
  readonly resources: ResourceView;
  readonly volumeSnapshots: VolumeSnapshots;
  readonly snapshotGroups: SnapshotGroups;
  readonly volumeCopies: VolumeCopies;
  readonly volumeBackups: VolumeBackups;
  readonly images: Images;
  readonly profiles: Profiles;
  readonly instances: Instances;
  readonly records: Records;
  readonly recover: Recover;
  readonly trust: Trust;
  readonly check: Check;
  /** Listens on the present `core.https_address`. @throws {LidoError} bad_request when it cannot; nothing is changed then. */
  readonly listen: () => Promise<void>;
  /** The address on which it listens for TLS, and its certificate there; undefined when only the unix socket is served. */
  readonly https: () => { readonly address: string; readonly certificate: string } | undefined;
  readonly consoles: ConsoleService;
  readonly exec: ExecService;
  readonly execSessions: ExecSessions;
  /** Ends the daemon as SIGTERM does, and closes the pools that nothing uses: they are unmounted, deactivated, exported. */
  readonly shutdown: () => void;
}
