/** Checks the output of `btrfs send` before `btrfs receive` acts on it: receive follows paths as they come, and a foreign stream could name any.
 * Names are bytes: each byte is one character (latin1) here, so that two names that differ for the kernel never become equal.
 * @see fs/btrfs/send.h, https://btrfs.readthedocs.io/en/latest/dev/dev-send-stream.html */
import { attribute, attributesOf, command, eachCommand, hex, kindOf, truncatedText } from "./stream_format.ts";

const pathMaxBytes = 4095;
/** Each link is kept in memory until the backup is read. */
const linksMax = 2_000_000;
const setXattr = 13, write = 15, truncate = 17, chmod = 18, updateExtent = 22;
const fallocate = 23, fileAttributes = 24, encodedWrite = 25;
/** These commands follow a link at the end of their path. */
const following: ReadonlySet<number> = new Set([
  write,
  command.clone,
  truncate,
  chmod,
  updateExtent,
  fallocate,
  fileAttributes,
  encodedWrite,
]);
/** These commands may apply to the subvolume itself, whose path is empty: set and remove xattr, chmod, chown, utimes, file attributes. */
const ofRoot: ReadonlySet<number> = new Set([setXattr, 14, chmod, 19, 20, fileAttributes]);
const nodeType = 0o170000n, blockDevice = 0o060000n, characterDevice = 0o020000n;

/** A tree of the symbolic links by path: a directory that moves takes its links along. */
interface Node {
  isLink: boolean;
  readonly children: Map<string, Node>;
}

interface Tree {
  readonly uuid: string;
  readonly root: Node;
}

/** Checks the streams of one backup, one after the other: each is full, or based on the subvolume of the one before. */
export class StreamGuard {
  #current: Tree | undefined;
  /** The current stream is based on it, and may clone from it. */
  #previous: Tree | undefined;
  readonly #seen = new Set<string>();
  #links = 0;

  /** @returns The stream unchanged. @throws {Error} When it is no stream, is truncated, or would write outside its subvolume. */
  async *check(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let position: Position = "begin";
    yield* eachCommand(stream, (bytes, version) => {
      position = this.#command(bytes, version, position);
      return bytes;
    });
    if (position as Position !== "end") throw new Error(truncatedText);
  }

  #command(bytes: Uint8Array, version: number, position: Position): Position {
    const kind = kindOf(bytes);
    const attributes = attributesOf(bytes, version);
    const text = (type: number) => latin1(attributes.get(type));
    const path = text(attribute.path);
    const begins = kind === command.subvolume || kind === command.snapshot;
    if (position === "end" || begins !== (position === "begin")) throw new Error("it holds more than one subvolume");
    if (kind === command.end) return "end";
    if (kind < 1 || kind > encodedWrite) throw new Error(`command ${kind} is unknown`);
    if (begins) {
      this.#begin(attributes, kind === command.snapshot);
      return "within";
    }
    const root = this.#current!.root;
    if (path === undefined) throw new Error(`command ${kind} has no path`);
    if (path !== "" || !ofRoot.has(kind)) refuseOutside(root, path);
    if (kind === command.rename) refuseOutside(root, need(text(attribute.pathTo)));
    // For a symbolic link the attribute is its target, which only the container will follow.
    if (kind === command.link) refuseOutside(root, need(text(attribute.pathLink)));
    if (kind === command.clone) {
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
      // "trusted" xattrs belong to the host: a container can make only those of overlayfs, and lido stores its own there.
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
    // The name becomes a directory's name, and may be logged: text without control characters.
    // deno-lint-ignore no-control-regex -- these are refused
    if (!/^[^/\x00-\x1f\ufffd]{1,255}$/.test(text) || text === "." || text === "..") {
      throw new Error(`the subvolume is called ${shown(name ?? "")}`);
    }
    const uuid = hex(attributes.get(attribute.uuid));
    // `btrfs receive` finds a stream's base by UUID: if two subvolumes had one UUID, the check would follow the wrong one.
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

/** A path for messages, decoded as UTF-8. */
function shown(path: string): string {
  return JSON.stringify(Buffer.from(path, "latin1").toString().slice(0, 200));
}

function need(path: string | undefined): string {
  if (path === undefined) throw new Error("the subvolume's stream is damaged: a command lacks a name");
  return path;
}

/** All eight bytes count: the kernel uses them all. */
function numberOf(bytes: Uint8Array | undefined): bigint {
  if (bytes?.length !== 8) throw new Error("the subvolume's stream is damaged: a number has not 8 bytes");
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}
