/** Options of a mount itself, by their names in fstab(5): those that an existing mount can get. @see mount_setattr(2) */

const MOUNT_ATTR_RDONLY = 0x1n, MOUNT_ATTR_NOSUID = 0x2n, MOUNT_ATTR_NODEV = 0x4n, MOUNT_ATTR_NOEXEC = 0x8n;
const MOUNT_ATTR_ATIME = 0x70n, MOUNT_ATTR_NOATIME = 0x10n, MOUNT_ATTR_STRICTATIME = 0x20n;
const MOUNT_ATTR_NODIRATIME = 0x80n, MOUNT_ATTR_NOSYMFOLLOW = 0x200000n;
const MS_UNBINDABLE = 1n << 17n, MS_PRIVATE = 1n << 18n, MS_SLAVE = 1n << 19n, MS_SHARED = 1n << 20n;

/** Option → attributes that it sets and clears. */
const attributes: Readonly<Record<string, { readonly set?: bigint; readonly clear?: bigint }>> = {
  ro: { set: MOUNT_ATTR_RDONLY },
  rw: { clear: MOUNT_ATTR_RDONLY },
  nosuid: { set: MOUNT_ATTR_NOSUID },
  suid: { clear: MOUNT_ATTR_NOSUID },
  nodev: { set: MOUNT_ATTR_NODEV },
  dev: { clear: MOUNT_ATTR_NODEV },
  noexec: { set: MOUNT_ATTR_NOEXEC },
  exec: { clear: MOUNT_ATTR_NOEXEC },
  noatime: { set: MOUNT_ATTR_NOATIME, clear: MOUNT_ATTR_ATIME },
  relatime: { clear: MOUNT_ATTR_ATIME },
  strictatime: { set: MOUNT_ATTR_STRICTATIME, clear: MOUNT_ATTR_ATIME },
  nodiratime: { set: MOUNT_ATTR_NODIRATIME },
  diratime: { clear: MOUNT_ATTR_NODIRATIME },
  nosymfollow: { set: MOUNT_ATTR_NOSYMFOLLOW },
  symfollow: { clear: MOUNT_ATTR_NOSYMFOLLOW },
};

/** The names of all options. */
export const mountOptionNames: readonly string[] = Object.keys(attributes);

const propagations: Readonly<Record<string, bigint>> = {
  private: MS_PRIVATE,
  shared: MS_SHARED,
  slave: MS_SLAVE,
  unbindable: MS_UNBINDABLE,
};

/** @param options Each one of `mountOptionNames`; later ones override earlier ones. @returns The attributes to set and to clear. */
export function mountAttributes(options: readonly string[]): { set: bigint; clear: bigint } {
  let set = 0n, clear = 0n;
  for (const option of options) {
    const { set: more = 0n, clear: less = 0n } = attributes[option]!;
    set = set & ~less | more;
    clear |= less;
  }
  return { set, clear };
}

/** @param name "shared", "rslave" and the like. @returns The flag for mount_setattr(2), and whether it applies to the mounts below. */
export function propagationOf(name: string): { flag: bigint; recursive: boolean } {
  const recursive = name.startsWith("r");
  return { flag: propagations[recursive ? name.slice(1) : name]!, recursive };
}
