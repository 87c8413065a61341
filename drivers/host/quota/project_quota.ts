import { readFileSync, statfsSync, statSync } from "node:fs";
import type { ProjectQuotas } from "../host.ts";
import { check, cString, errno, libc, SystemCallError } from "../ffi/libc.ts";
import { projectAt, setProject, setProjectAt, withDirectory } from "./project_id.ts";
import { walkTree } from "../files/walk_tree.ts";

/** QCMD(cmd, PRJQUOTA). @see linux/quota.h, linux/dqblk_xfs.h */
const PRJQUOTA = 2;
const command = (number: number) => ((number << 8) | PRJQUOTA) >>> 0;
const Q_GETQUOTA = command(0x800007), Q_SETQUOTA = command(0x800008), Q_GETNEXTQUOTA = command(0x800009);
const Q_XGETQSTATV = command(0x5808);
/** struct if_dqblk: hard limit and soft limit in KiB, bytes used, the same for inodes, two times, and a mask of valid fields. */
const recordBytes = 72, usedOffset = 16, inodesOffset = 40, validOffset = 64;
const QIF_BLIMITS = 1;
/** struct if_nextdqblk: the same, and the id. */
const nextBytes = 80, nextIdOffset = 68;
/** struct fs_quota_statv, version 1; flags are 16 bits from byte 2 on. */
const stateBytes = 160, stateVersion = 1;
const FS_QUOTA_PDQ_ACCT = 1 << 4, FS_QUOTA_PDQ_ENFD = 1 << 5;
const ENOENT = 2, ESRCH = 3, ENOSYS = 38, EOPNOTSUPP = 95;

const ext4Type = 0xef53, xfsType = 0x58465342;
const filesystems: Readonly<Record<number, string>> = {
  [ext4Type]: "ext4",
  [xfsType]: "xfs",
  0x9123683e: "btrfs",
  0x01021994: "tmpfs",
  0x794c7630: "overlay",
  0x2fc12fc1: "zfs",
  0x6969: "nfs",
  0xf2f52010: "f2fs",
};

/** Range of ids that lido assigns. LXD's begin at 10000, Kubernetes' at 2^20. */
const firstId = 1 << 24, lastId = 0x7fff_ffff;
/** How often another process may take an id between our check and our use of it. */
const attemptsMax = 32;

/** Attribute of a tree's top directory while not all of its files have its id yet. */
const marker = cString("trusted.lido.project");
const markerValue = new TextEncoder().encode("incomplete");
const ENODATA = 61;

/** Quotas by the kernel's own interface: no tool is started. */
export class HostProjectQuotas implements ProjectQuotas {
  /** By filesystem: the highest id that was assigned. */
  readonly #given = new Map<number, number>();

  // deno-lint-ignore require-await -- async as the contract: other hosts may take time
  async probe(directory: string): Promise<{ exemptsRoot: boolean } | { absent: string }> {
    const type = Number(statfsSync(directory).type) >>> 0;
    const name = filesystems[type] ?? `type 0x${type.toString(16)}`;
    if (type !== ext4Type && type !== xfsType) {
      return { absent: `the pool's filesystem (${name}) has no project quotas: ext4 and xfs have` };
    }
    return withDirectory(directory, (fd) => {
      const { id, inherits } = projectAt(fd);
      if (inherits) return { absent: `the pool's directory is itself part of project ${id}` };
      const reason = whyOff(fd, type === ext4Type);
      // ext4 exempts processes with CAP_SYS_RESOURCE; xfs exempts only project 0.
      return reason === undefined ? { exemptsRoot: type === ext4Type } : { absent: reason };
    }) ?? { absent: `the directory "${directory}" is gone` };
  }

  // deno-lint-ignore require-await -- as above
  async assign(directory: string): Promise<void> {
    inDirectory(directory, (fd) => this.#take(fd, directory));
  }

  async adopt(directory: string): Promise<void> {
    const id = inDirectory(directory, (fd) => {
      const project = projectAt(fd);
      if (project.id !== 0 && project.inherits && !isIncomplete(directory)) return undefined;
      check("mark a tree", libc.lsetxattr(cString(directory), marker, markerValue, markerValue.length, 0));
      return project.id !== 0 && project.inherits ? project.id : this.#take(fd, directory);
    });
    if (id === undefined) return;
    // A directory gets the id before its entries are listed. So entries created later inherit it, and an entry moved in must have it: the kernel
    // refuses to move any other (EXDEV).
    await walkTree(directory, {
      purpose: "set the project",
      entry: (parent, name, { mode }) => setProjectAt(parent, name, mode, id),
    });
    check("take a mark away", libc.lremovexattr(cString(directory), marker));
  }

  // deno-lint-ignore require-await -- as above
  async usage(
    directory: string,
  ): Promise<{ usedBytes: bigint; limitBytes: bigint | undefined; usedInodes: number } | undefined> {
    return withDirectory(directory, (fd) => {
      const { id, inherits } = projectAt(fd);
      if (id === 0 || !inherits || isIncomplete(directory)) return undefined;
      const { usedBytes, limitBytes, inodes } = read(fd, id);
      return { usedBytes, limitBytes, usedInodes: Number(inodes) };
    });
  }

  // deno-lint-ignore require-await -- as above
  async limit(directory: string, limitBytes: bigint | undefined): Promise<void> {
    inDirectory(directory, (fd) => write(fd, ownId(fd, directory), limitBytes));
  }

  // deno-lint-ignore require-await -- as above
  async release(directory: string): Promise<void> {
    withDirectory(directory, (fd) => {
      const { id, inherits } = projectAt(fd);
      if (id === 0 || !inherits) return;
      try {
        write(fd, id, undefined);
      } catch (error) {
        // Quotas were switched off since: then there is no record.
        if (!(error instanceof SystemCallError && (error.errno === ESRCH || error.errno === ENOSYS))) throw error;
      }
    });
  }

  /** Gives a directory an unused id. Check and use are in one turn of the event loop; a conflict with another process shows in the number of
   * files. @returns The id. */
  #take(fd: number, directory: string): number {
    const device = statSync(directory).dev;
    let id = this.#given.get(device) ?? highest(fd);
    const reserved = reservedIds();
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      do id = id >= lastId ? firstId : id + 1; while (reserved.has(id) || next(fd, id) === id);
      setProject(fd, { id, inherits: true });
      this.#given.set(device, id);
      if (read(fd, id).inodes === 1n) return id;
      setProject(fd, { id: 0, inherits: false });
    }
    throw new Error(`Cannot give "${directory}" a project: others took ${attemptsMax} ids at the same time`);
  }
}

/** @returns Why project quotas are not enforced; undefined when they are. */
function whyOff(fd: number, isExt4: boolean): string | undefined {
  const state = new Uint8Array(stateBytes);
  state[0] = stateVersion;
  const isOn = Number(libc.quotactl_fd(fd, Q_XGETQSTATV, 0, state)) === 0;
  const flags = isOn ? new DataView(state.buffer).getUint16(2, true) : 0;
  if (flags & FS_QUOTA_PDQ_ENFD) return undefined;
  if (flags & FS_QUOTA_PDQ_ACCT) {
    return "the filesystem counts projects but does not limit them (mount option pqnoenforce)";
  }
  if (isExt4 && !hasProjectFeature(fd)) {
    return `the ext4 filesystem was made without the features "project" and "quota" (tune2fs -O project,quota adds them)`;
  }
  // Without quota support in the kernel this call fails with ENOSYS, even on a filesystem without quotas.
  const failed = Number(libc.quotactl_fd(fd, Q_GETQUOTA, 0, new Uint8Array(recordBytes))) < 0 ? errno() : 0;
  if (failed === ENOSYS) return "this kernel was built without quotas for the pool's filesystem";
  return "the filesystem is not mounted with the option prjquota";
}

/** Without the feature, ext4 refuses every id but 0; tried on the pool's directory, whose own id is restored at once. */
function hasProjectFeature(fd: number): boolean {
  const before = projectAt(fd);
  try {
    setProject(fd, { ...before, id: lastId });
  } catch (error) {
    if (error instanceof SystemCallError && error.errno === EOPNOTSUPP) return false;
    throw error;
  }
  setProject(fd, before);
  return true;
}

function inDirectory<T>(directory: string, work: (fd: number) => T): T {
  let found = false;
  const result = withDirectory(directory, (fd) => {
    found = true;
    return work(fd);
  });
  if (!found) throw new Error(`Cannot set the quota of "${directory}": there is no such directory`);
  return result as T;
}

function ownId(fd: number, directory: string): number {
  const { id, inherits } = projectAt(fd);
  if (id !== 0 && inherits) return id;
  throw new Error(`Cannot limit "${directory}": it has no project`);
}

function isIncomplete(directory: string): boolean {
  if (Number(libc.lgetxattr(cString(directory), marker, null, 0)) >= 0) return true;
  if (errno() === ENODATA || errno() === EOPNOTSUPP) return false;
  throw new SystemCallError("read a mark", errno());
}

function read(fd: number, id: number): { usedBytes: bigint; limitBytes: bigint | undefined; inodes: bigint } {
  const record = new Uint8Array(recordBytes);
  const result = Number(libc.quotactl_fd(fd, Q_GETQUOTA, id, record));
  if (result < 0) {
    // xfs creates the record when the first block is used.
    if (errno() === ENOENT) return { usedBytes: 0n, limitBytes: undefined, inodes: 0n };
    throw new SystemCallError("read a quota", errno());
  }
  const view = new DataView(record.buffer);
  const limit = view.getBigUint64(0, true);
  return {
    limitBytes: limit === 0n ? undefined : limit * 1024n,
    usedBytes: view.getBigUint64(usedOffset, true),
    inodes: view.getBigUint64(inodesOffset, true),
  };
}

function write(fd: number, id: number, limitBytes: bigint | undefined): void {
  const record = new Uint8Array(recordBytes);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, limitBytes === undefined ? 0n : (limitBytes + 1023n) / 1024n, true);
  view.setUint32(validOffset, QIF_BLIMITS, true);
  check("set a quota", libc.quotactl_fd(fd, Q_SETQUOTA, id, record));
}

/** @returns The first id from `id` on that has a record: files or limits; undefined when none has. */
function next(fd: number, id: number): number | undefined {
  const record = new Uint8Array(nextBytes);
  if (Number(libc.quotactl_fd(fd, Q_GETNEXTQUOTA, id, record)) === 0) {
    return new DataView(record.buffer).getUint32(nextIdOffset, true);
  }
  if (errno() === ENOENT || errno() === ESRCH) return undefined;
  throw new SystemCallError("look for a quota", errno());
}

/** @returns The highest of our ids that has a record. Searched once per filesystem. */
function highest(fd: number): number {
  let id = firstId - 1;
  for (let found = next(fd, firstId); found !== undefined && found < lastId; found = next(fd, found + 1)) id = found;
  return id;
}

/** Ids to which the administrator gave names or directories. @see projid(5), projects(5) */
function reservedIds(): Set<number> {
  const read = (file: string, pattern: RegExp): number[] => {
    try {
      return [...readFileSync(file, "utf8").matchAll(pattern)].map(([, id]) => Number(id));
    } catch {
      return []; // the files are optional
    }
  };
  return new Set([...read("/etc/projid", /^[^#:\n]*:(\d+)/gm), ...read("/etc/projects", /^(\d+):/gm)]);
}
