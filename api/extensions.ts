/** Extensions that LXD does not have, by name: what each adds, in a paragraph of Markdown. The reference is generated from this table. */
export const ownExtensions: Readonly<Record<string, string>> = {
  admin_check:
    "`POST /1.0/check` compares the database with the host. It returns a list of problems: `subject` (a path " +
    "of the host, or `pool/NAME/TYPE/VOLUME`), `problem`, `can_repair` and `repaired`. With `repair: true` in the body, " +
    "what can be repaired without losing data is.",
  device_detach_lazy: "`?detach=lazy` of PUT and PATCH of an instance and of PUT and PATCH of a profile: a disk that " +
    "processes of a running instance still use is detached all the same, and goes when they release it. Without it such " +
    "a change is refused, and the processes are named.",
  admin_recover:
    "`GET /internal/recover/pools` lists storage pools that are on the host and not known, by name, driver " +
    "and configuration. `POST /internal/recover/validate` and `/import` are those of `lxd recover`; in the body also " +
    "`force` (recover what an interrupted operation was deleting or changing, too) and `drop_images` (delete unpacked " +
    "copies of unknown images), in the answer also `notes` for each volume, `Problems` and `UnknownImages`.",
  exec_sessions:
    "`detachable: true` in the body of `POST /1.0/instances/NAME/exec` starts a command that outlives its " +
    "client. `GET /1.0/exec-sessions` lists such commands (`?instance=` those of one instance, `?recursion=1` with their " +
    "state), `GET /1.0/exec-sessions/ID` shows one, `POST /1.0/exec-sessions/ID/attach` gives the websockets of exec " +
    "again, with the output that no client has seen, and DELETE kills the command and forgets the session.",
  storage_volumes_snapshot_group:
    "`POST /1.0/storage-snapshot-groups` takes snapshots of several custom volumes at one " +
    "moment, all or none. The body has `name` (of each snapshot), `volumes` (a list of `pool` and `name`) and, if they " +
    "are not to go by each volume's `snapshots.expiry`, `expires_at`.",
  storage_pool_facets:
    "A storage pool tells what its driver can do on this host: `facets` lists it, `absent` says for " +
    "each of the others why not, `reason` why the pool is unavailable, and `idmapped_mounts` whether volumes can be " +
    "shared by containers with different id maps. `GET /1.0/storage-pools/NAME/health` tells the state of its devices, " +
    "where the facet `health` is there.",
  storage_volume_files:
    "`/1.0/storage-pools/POOL/volumes/custom/NAME/files?path=` is for the files of a custom volume " +
    "what `/1.0/instances/NAME/files` is for those of an instance: GET, HEAD, POST and DELETE, with the same `X-LXD-` " +
    "headers; GET of a directory with `?recursion=1` lists its entries with type, owner, mode, size and time.",
  storage_volume_snapshot_restore:
    "`POST /1.0/storage-pools/POOL/volumes/custom/NAME/snapshots/SNAPSHOT/restore` makes " +
    "the volume what the snapshot holds, as a background operation that can be cancelled; LXD has it as a field of PUT, " +
    "whose request lasts as long as the restore.",
  instance_last_exit: "The state of an instance has `last_exit`: how its init ended last (`exit_code`, `signal`, " +
    "`description`, the likely `cause`, the last lines of its console and the time). The event `instance-shutdown` has " +
    "the first four in its context.",
  operation_notes:
    "An operation that succeeded may have something to tell all the same: `metadata.notes` is a list of " +
    "texts, such as the keys that take effect with the next start. Requests that are answered at once have it in " +
    "`metadata` of the answer.",
  metadata_configuration: "`GET /1.0/metadata/configuration` describes every configuration key in the shape of later " +
    "LXDs: type, default, one line of help and, where they can be listed, the allowed values.",
};

/** LXD API extensions that lido has: exactly those that work, because a client refuses a verb whose extension is missing and relies on one that
 * is there. */
export const extensions: readonly string[] = [
  "id_map",
  "etag",
  "patch",
  "storage",
  "storage_api_volume_rename",
  "storage_zfs_remove_snapshots",
  "storage_zfs_use_refquota",
  "storage_zfs_clone_copy",
  "storage_zfs_reserve_space",
  "storage_lvm_use_thinpool",
  "container_exec_recording",
  "container_exec_signal_handling",
  "profile_usedby",
  "image_create_aliases",
  "resources",
  "operation_description",
  "id_map_current",
  "unprivileged_idmap",
  "api_filtering",
  "container_exec_user_group_cwd",
  "storage_driver_btrfs",
  "storage_btrfs_mount_options",
  "storage_api_local_volume_handling",
  "storage_api_volume_snapshots",
  "storage_volume_state",
  "console",
  "container_full",
  "instances",
  "event_lifecycle",
  "instance_get_full",
  "instance_bulk_state_change",
  "storage_shifted",
  "storage_unmapped",
  "storage_api_project",
  "snapshot_expiry",
  "snapshot_expiry_creation",
  "custom_volume_snapshot_expiry",
  "resources_v2",
  "instance_all_projects",
  "storage_volumes_all_projects",
  "cloud_init",
  "custom_volume_backup",
  "custom_volume_refresh",
  "backup_override_name",
  ...Object.keys(ownExtensions),
];
