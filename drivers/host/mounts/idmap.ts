import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import type { IdMap, IdRange } from "../id_map.ts";
import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";
import { mountAttributes, propagationOf } from "./mount_options.ts";

const OPEN_TREE_CLONE = 1, AT_FDCWD = -100, AT_EMPTY_PATH = 0x1000, AT_RECURSIVE = 0x8000, O_CLOEXEC = 0x80000;
const MOUNT_ATTR_IDMAP = 0x100000n;

/** A range of host ids that root may assign. */
export interface HostRange {
  readonly start: number;
  readonly count: number;
}

/** LXD's range when root has none of its own. */
const defaultRange: HostRange = { start: 1_000_000, count: 1_000_000_000 };

/** @returns Root's ranges in /etc/subuid and /etc/subgid, in the order of the files; LXD's default when one of them has none. @see subuid(5) */
export async function readSubIds(): Promise<{ uid: HostRange[]; gid: HostRange[] }> {
  const [uid, gid] = await Promise.all(
    ["/etc/subuid", "/etc/subgid"].map((file) => readFile(file, "utf8").catch(() => "")),
  );
  return rootRanges(uid!, gid!);
}

/** @param uid Text of /etc/subuid. @param gid Text of /etc/subgid. */
export function rootRanges(uid: string, gid: string): { uid: HostRange[]; gid: HostRange[] } {
  const ranges = { uid: parseSubIds(uid), gid: parseSubIds(gid) };
  const isComplete = ranges.uid.length > 0 && ranges.gid.length > 0;
  return isComplete ? ranges : { uid: [defaultRange], gid: [defaultRange] };
}

/** @param text "name:start:count" lines; those of "root" or "0" are used. Invalid lines are skipped, as by newuidmap(1). */
export function parseSubIds(text: string): HostRange[] {
  return text.split("\n").flatMap((line) => {
    const match = /^(?:root|0):(\d{1,10}):(\d{1,10})$/.exec(line.trim());
    if (!match) return [];
    const start = Number(match[1]), count = Number(match[2]);
    return count > 0 && start + count <= 2 ** 32 ? [{ start, count }] : [];
  });
}

/** @returns The host id of a container's id, or undefined when the map has none. */
export function hostId(ranges: readonly IdRange[], id: number): number | undefined {
  const range = ranges.find(({ container, count }) => id >= container && id < container + count);
  return range && range.host + id - range.container;
}

/** @param idmap Absent for a privileged container. @returns The host ids of the container's root. */
export function rootOwner(idmap: IdMap | undefined): { uid: number; gid: number } {
  return { uid: idmap ? hostId(idmap.uid, 0) ?? 0 : 0, gid: idmap ? hostId(idmap.gid, 0) ?? 0 : 0 };
}

const namespaces = new Map<string, Promise<number>>();

/** @returns An fd of a user namespace with this map, for mount_setattr(2); one per map, kept for the daemon's lifetime. */
export function userNamespace(map: IdMap): Promise<number> {
  const key = JSON.stringify([map.uid, map.gid]);
  let namespace = namespaces.get(key);
  if (!namespace) {
    namespace = makeUserNamespace(map);
    namespaces.set(key, namespace);
    namespace.catch(() => namespaces.delete(key));
  }
  return namespace;
}

/** A process with several threads cannot create a user namespace, so a child does; it prints a line when it is inside, and lives
 * until its map is written and our fd keeps the namespace. */
async function makeUserNamespace(map: IdMap): Promise<number> {
  const child = spawn("/usr/bin/unshare", ["--user", "/bin/sh", "-c", "echo; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  try {
    await new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`Cannot make a user namespace: unshare ended with ${code}`)));
      child.stdout.once("data", () => resolve());
    });
    await writeFile(`/proc/${child.pid}/uid_map`, mapLines(map.uid));
    await writeFile(`/proc/${child.pid}/gid_map`, mapLines(map.gid));
    return check("open user namespace", libc.open(cString(`/proc/${child.pid}/ns/user`), O_CLOEXEC, 0));
  } finally {
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null && child.pid) await once(child, "exit");
  }
}

function mapLines(ranges: readonly IdRange[]): string {
  return ranges.map(({ container, host, count }) => `${container} ${host} ${count}\n`).join("");
}

export interface CloneMountOptions {
  readonly idmap?: IdMap;
  readonly recursive?: boolean;
}

/** A detached copy of the mount that `path` is on, from `path` down; the caller moves it to its place and closes it.
 * @param path A host path, or an fd with an empty path. @returns The tree's fd. @see open_tree(2), mount_setattr(2) */
export async function cloneMount(path: string, options: CloneMountOptions = {}): Promise<number> {
  const namespace = options.idmap && await userNamespace(options.idmap);
  return cloneMountIn(path, { ...options, namespace });
}

/** `cloneMount` with the namespace at hand: synchronous, so that it can run while the thread is in another mount namespace. */
export function cloneMountIn(
  path: string,
  options: {
    namespace?: number | undefined;
    recursive?: boolean;
    /** Options of the mount itself, see `mountOptionNames`; the mounts below get them, too. */
    options?: readonly string[];
    /** How mounts propagate to and from the source: "slave", "rshared" and the like. "as-source" keeps the source's
     * propagation. Absent: none in either direction. */
    propagation?: string | undefined;
  },
): number {
  const recursive = options.recursive ? AT_RECURSIVE : 0;
  const tree = check(
    `open_tree ${path}`,
    libc.open_tree(AT_FDCWD, cString(path), OPEN_TREE_CLONE | O_CLOEXEC | recursive),
  );
  try {
    const { set, clear } = mountAttributes(options.options ?? []);
    const idmap = options.namespace === undefined ? 0n : MOUNT_ATTR_IDMAP;
    setAttributes(tree, path, recursive, [set | idmap, clear, 0n, BigInt(options.namespace ?? 0)]);
    if (options.propagation !== "as-source") {
      const { flag, recursive: below } = propagationOf(options.propagation ?? "rprivate");
      setAttributes(tree, path, below ? AT_RECURSIVE : 0, [0n, 0n, flag, 0n]);
    }
    return tree;
  } catch (error) {
    libc.close(tree);
    throw error;
  }
}

/** Sets options of the mount at `target`; its other options stay. @param options See `mountOptionNames`. @see mount_setattr(2) */
export function setMountOptions(target: string, options: readonly string[]): void {
  const { set, clear } = mountAttributes(options);
  const bytes = new Uint8Array(new BigUint64Array([set, clear, 0n, 0n]).buffer);
  check(`mount_setattr ${target}`, libc.mount_setattr(AT_FDCWD, cString(target), 0, bytes, bytes.length));
}

/** @param values attr_set, attr_clr, propagation, userns_fd. */
function setAttributes(tree: number, path: string, recursive: number, values: readonly bigint[]): void {
  const bytes = new Uint8Array(new BigUint64Array(values).buffer);
  check(`mount_setattr ${path}`, libc.mount_setattr(tree, cString(""), AT_EMPTY_PATH | recursive, bytes, bytes.length));
}

/** Whether the filesystem at `path` supports idmapped mounts: tried, because the kernel does not tell. */
export async function canIdmap(path: string): Promise<boolean> {
  const one = [{ container: 0, host: 65536, count: 65536 }];
  try {
    libc.close(await cloneMount(path, { idmap: { uid: one, gid: one } }));
    return true;
  } catch (error) {
    if (error instanceof SystemCallError) return false;
    throw error;
  }
}
