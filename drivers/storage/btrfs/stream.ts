/** What `btrfs send` writes, checked before `btrfs receive` acts on it: receive follows paths as they come, and a stream from elsewhere could name any.
 * Names are bytes: each byte is one character (latin1) here, so two names that the kernel tells apart never become one.
 * @see fs/btrfs/send.h, https://btrfs.readthedocs.io/en/latest/dev/dev-send-stream.html */

const magic = "btrfs-stream\0";
const prefixBytes = magic.length + 4;
const commandHeaderBytes = 10;
const commandMaxBytes = 1 << 20;
const pathMaxBytes = 4095;
/** Each costs memory until the backup is read. */
const linksMax = 2_000_000;
const command = { subvolume: 1, snapshot: 2, makeNode: 5, symlink: 8, rename: 9, link: 10, unlink: 11, rmdir: 12 };
const setXattr = 13, write = 15, clone = 16, truncate = 17, chmod = 18, end = 21, updateExtent = 22;
const fallocate = 23, fileAttributes = 24, encodedWrite = 25;
/** These follow a link at the end of their path. */
const following: ReadonlySet<number> = new Set([
  write,
  clone,
  truncate,
  chmod,
  updateExtent,
  fallocate,
  fileAttributes,
  encodedWrite,
]);
/** These may mean the subvolume itself, whose path is empty: set and remove an xattr, chmod, chown, utimes, file attributes. */
const ofRoot: ReadonlySet<number> = new Set([setXattr, 14, chmod, 19, 20, fileAttributes]);
const attribute = {
  uuid: 1,
  mode: 5,
  device: 8,
  xattrName: 13,
  path: 15,
  pathTo: 16,
  pathLink: 17,
  data: 19,
  cloneUuid: 20,
  clonePath: 22,
};
const nodeType = 0o170000n, blockDevice = 0o060000n, characterDevice = 0o020000n;

/** Symbolic links by path, so that a directory that moves takes its own along. */
interface Node {
  isLink: boolean;
  readonly children: Map<string, Node>;
}

interface Tree {
  readonly uuid: string;
  readonly root: Node;
}

/** Checks the streams of one backup, one after the other: each is whole, or begins with what the one before made. */
export class StreamGuard {
  #current: Tree | undefined;
  /** The current one is based on it, and may clone from it. */
  #previous: Tree | undefined;
  readonly #seen = new Set<string>();
  #links = 0;

  /** @returns The stream as it came. @throws {Error} When it is none, is truncated, or would lead out of its subvolume. */
  async *check(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let rest: Uint8Array = new Uint8Array();
    let version = 0, position: Position = "begin";
    for await (const chunk of stream) {
      rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      if (version === 0) {
        if (rest.length < prefixBytes) continue;
        version = versionOf(rest);
        at = prefixBytes;
      }
      for (;;) {
        const length = lengthAt(rest, at);
        if (length === undefined || rest.length < at + length) break;
        position = this.#command(rest.subarray(at, at + length), version, position);
        at += length;
      }
      if (at > 0) yield rest.subarray(0, at);
      rest = rest.subarray(at);
    }
    if (version === 0 || rest.length > 0 || position !== "end") throw new Error("the subvolume's stream is truncated");
  }

  #command(bytes: Uint8Array, version: number, position: Position): Position {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const kind = view.getUint16(4, true);
    const attributes = attributesOf(bytes, view, version);
    const text = (type: number) => latin1(attributes.get(type));
    const path = text(attribute.path);
    const begins = kind === command.subvolume || kind === command.snapshot;
    if (position === "end" || begins !== (position === "begin")) throw new Error("it holds more than one subvolume");
    if (kind === end) return "end";
    if (kind < 1 || kind > encodedWrite) throw new Error(`command ${kind} is unknown`);
    if (begins) {
      this.#begin(attributes, kind === command.snapshot);
      return "within";
    }
    const root = this.#current!.root;
    if (path === undefined) throw new Error(`command ${kind} has no path`);
    if (path !== "" || !ofRoot.has(kind)) refuseOutside(root, path);
    if (kind === command.rename) refuseOutside(root, need(text(attribute.pathTo)));
    // Of a symbolic link it is its target, which only the container will follow.
    if (kind === command.link) refuseOutside(root, need(text(attribute.pathLink)));
    if (kind === clone) {
      this.#refuseForeignClone(need(text(attribute.clonePath)), hex(attributes.get(attribute.cloneUuid)));
    }
    if (following.has(kind)) refuseLink(root, path);
    if (kind === command.makeNode) {
      const mode = numberOf(attributes.get(attribute.mode)), device = numberOf(attributes.get(attribute.device));
      const type = mode & nodeType;
      // Character device 0:0 is a whiteout of overlayfs, which a container may make.
      if (type === blockDevice || (type === characterDevice && device !== 0n)) {
        throw new Error(`${shown(path)} is a device node`);
      }
    }
    if (kind === setXattr) {
      const name = need(text(attribute.xattrName));
      // Those of the namespace "trusted" are the host's: a container makes none but an overlay's, and lido keeps notes there.
      if (name.startsWith("trusted.") && !name.startsWith("trusted.overlay.")) {
        throw new Error(`${shown(path)} has extended attribute ${shown(name)}`);
      }
    }
    if (kind === command.symlink) this.#addLink(path);
    else if (kind === command.link) {
      if (find(root, text(attribute.pathLink)!)?.isLink) this.#addLink(path);
    } else if (kind === command.unlink || kind === command.rmdir) {
      if (take(root, path)?.isLink) this.#links--;
    } else if (kind === command.rename) {
      const to = text(attribute.pathTo)!;
      const moved = take(root, path);
      if (take(root, to)?.isLink) this.#links--;
      if (!moved) return "within";
      const target = add(root, to);
      target.isLink = moved.isLink;
      for (const [name, child] of moved.children) target.children.set(name, child);
    }
    return "within";
  }

  #begin(attributes: ReadonlyMap<number, Uint8Array>, isIncremental: boolean): void {
    const name = latin1(attributes.get(attribute.path));
    const text = Buffer.from(name ?? "", "latin1").toString();
    // It becomes a directory's name, and may reach logs: it is text without control characters.
    // deno-lint-ignore no-control-regex -- these are what is refused
    if (!/^[^/\x00-\x1f\ufffd]{1,255}$/.test(text) || text === "." || text === "..") {
      throw new Error(`the subvolume is called ${shown(name ?? "")}`);
    }
    const uuid = hex(attributes.get(attribute.uuid));
    // `btrfs receive` finds by UUID what a stream is based on: one that stands for two subvolumes would be checked against the wrong one.
    if (uuid.length !== 32 || this.#seen.has(uuid)) throw new Error("the subvolume's UUID is missing, or not its own");
    const base = hex(attributes.get(attribute.cloneUuid));
    if (isIncremental && base !== this.#current?.uuid) throw new Error("it is based on another volume");
    this.#seen.add(uuid);
    this.#previous = isIncremental ? this.#current : undefined;
    if (!isIncremental) this.#links = 0;
    this.#current = { uuid, root: this.#previous ? structuredClone(this.#previous.root) : newNode() };
  }

  #refuseForeignClone(path: string, uuid: string): void {
    const tree = [this.#current, this.#previous].find((one) => one?.uuid === uuid);
    if (!tree) throw new Error("it clones from another volume");
    refuseOutside(tree.root, path);
    refuseLink(tree.root, path);
  }

  #addLink(path: string): void {
    if (++this.#links > linksMax) throw new Error(`it has more than ${linksMax} symbolic links`);
    add(this.#current!.root, path).isLink = true;
  }
}

type Position = "begin" | "within" | "end";

function newNode(): Node {
  return { isLink: false, children: new Map() };
}

function refuseOutside(root: Node, path: string): void {
  const parts = path.split("/");
  if (
    path.length > pathMaxBytes || path.includes("\0") ||
    parts.some((part) => part === "" || part === "." || part === "..")
  ) throw new Error(`${shown(path)} leads out of the backup`);
  let node: Node | undefined = root;
  for (const part of parts) {
    if (node.isLink) throw new Error(`${shown(path)} goes through a symbolic link of the backup`);
    node = node.children.get(part);
    if (!node) return;
  }
}

function refuseLink(root: Node, path: string): void {
  if (find(root, path)?.isLink) throw new Error(`${shown(path)} is reached through a symbolic link`);
}

function find(root: Node, path: string): Node | undefined {
  return path.split("/").reduce<Node | undefined>((node, part) => node?.children.get(part), root);
}

function add(root: Node, path: string): Node {
  return path.split("/").reduce((node, part) => {
    let child = node.children.get(part);
    if (!child) node.children.set(part, child = newNode());
    return child;
  }, root);
}

function take(root: Node, path: string): Node | undefined {
  const parts = path.split("/"), name = parts.pop()!;
  const parent = parts.length === 0 ? root : find(root, parts.join("/"));
  const found = parent?.children.get(name);
  parent?.children.delete(name);
  return found;
}

function latin1(bytes: Uint8Array | undefined): string | undefined {
  return bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** For messages: as text where it is. */
function shown(path: string): string {
  return JSON.stringify(Buffer.from(path, "latin1").toString().slice(0, 200));
}

function need(path: string | undefined): string {
  if (path === undefined) throw new Error("the subvolume's stream is damaged: a command lacks a name");
  return path;
}

/** All eight bytes count: the kernel has them as they are. */
function numberOf(bytes: Uint8Array | undefined): bigint {
  if (bytes?.length !== 8) throw new Error("the subvolume's stream is damaged: a number has not 8 bytes");
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}

/** @returns The subvolume's UUID, of the first command of a stream; undefined while there are too few bytes. */
export function streamUuid(head: Uint8Array): string | undefined {
  if (head.length < prefixBytes) return undefined;
  const version = versionOf(head);
  const length = lengthAt(head, prefixBytes);
  if (length === undefined || head.length < prefixBytes + length) return undefined;
  const bytes = head.subarray(prefixBytes, prefixBytes + length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const uuid = hex(attributesOf(bytes, view, version).get(attribute.uuid));
  return uuid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function versionOf(head: Uint8Array): number {
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const version = view.getUint32(magic.length, true);
  if (new TextDecoder("latin1").decode(head.subarray(0, magic.length)) !== magic || version < 1 || version > 2) {
    throw new Error("it is no stream of a btrfs subvolume");
  }
  return version;
}

function lengthAt(bytes: Uint8Array, at: number): number | undefined {
  if (bytes.length < at + commandHeaderBytes) return undefined;
  const length = new DataView(bytes.buffer, bytes.byteOffset + at, 4).getUint32(0, true) + commandHeaderBytes;
  if (length > commandMaxBytes) throw new Error("the subvolume's stream is damaged: a command is too long");
  return length;
}

function attributesOf(bytes: Uint8Array, view: DataView, version: number): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  for (let at = commandHeaderBytes; at < bytes.length;) {
    if (at + 2 > bytes.length) throw new Error("the subvolume's stream is damaged");
    const type = view.getUint16(at, true);
    // In the second version the data has no length: it is the rest.
    if (version >= 2 && type === attribute.data) break;
    if (at + 4 > bytes.length) throw new Error("the subvolume's stream is damaged");
    const length = view.getUint16(at + 2, true);
    if (at + 4 + length > bytes.length) throw new Error("the subvolume's stream is damaged");
    // Which of two counts is the reader's affair; there must be none to choose from.
    if (found.has(type)) throw new Error("the subvolume's stream is damaged: an attribute comes twice");
    found.set(type, bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return found;
}

function hex(bytes: Uint8Array | undefined): string {
  return bytes ? Buffer.from(bytes).toString("hex") : "";
}
