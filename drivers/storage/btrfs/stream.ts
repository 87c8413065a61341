/** What `btrfs send` writes, looked at before `btrfs receive` acts on it: it follows paths as they come, and a stream from elsewhere could name any.
 * @see fs/btrfs/send.h, https://btrfs.readthedocs.io/en/latest/dev/dev-send-stream.html */

const magic = "btrfs-stream\0";
const prefixBytes = magic.length + 4;
const commandHeaderBytes = 10;
const commandMaxBytes = 1 << 20;
const command = { subvolume: 1, snapshot: 2, makeNode: 5, symlink: 8, rename: 9, unlink: 11, rmdir: 12, write: 15 };
const clone = 16, truncate = 17, chmod = 18, updateExtent = 22, fallocate = 23, encodedWrite = 25;
/** These follow a link at the end of their path. */
const following: ReadonlySet<number> = new Set([
  command.write,
  clone,
  truncate,
  chmod,
  updateExtent,
  fallocate,
  encodedWrite,
]);
const attribute = { uuid: 1, mode: 5, path: 15, pathTo: 16, pathLink: 17, data: 19, cloneUuid: 20, clonePath: 22 };
const nodeType = 0o170000, blockDevice = 0o060000, characterDevice = 0o020000;

/** Symbolic links by path, so that a directory that moves takes its own along. */
interface Node {
  isLink: boolean;
  readonly children: Map<string, Node>;
}

/** Checks the streams of one backup, one after the other: each begins with what the one before made. */
export class StreamGuard {
  #root: Node = { isLink: false, children: new Map() };
  readonly #known = new Set<string>();

  /** @returns The stream as it came. @throws {Error} When it is none, is cut off, or would lead out of its subvolume. */
  async *check(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let rest: Uint8Array = new Uint8Array();
    let version = 0;
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
        this.#command(rest.subarray(at, at + length), version);
        at += length;
      }
      if (at > 0) yield rest.subarray(0, at);
      rest = rest.subarray(at);
    }
    if (version === 0 || rest.length > 0) throw new Error("the subvolume's stream is truncated");
  }

  #command(bytes: Uint8Array, version: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const kind = view.getUint16(4, true);
    const attributes = attributesOf(bytes, view, version);
    const text = (type: number) => {
      const value = attributes.get(type);
      return value && new TextDecoder().decode(value);
    };
    const path = text(attribute.path);
    if (kind === command.subvolume || kind === command.snapshot) {
      if (path === undefined || !/^[^/]+$/.test(path) || path === "." || path === "..") {
        throw new Error(`the subvolume is called ${JSON.stringify(path)}`);
      }
      // A full stream begins with nothing.
      if (kind === command.subvolume) this.#root = { isLink: false, children: new Map() };
      for (const type of [attribute.uuid, attribute.cloneUuid]) this.#known.add(hex(attributes.get(type)));
      return;
    }
    for (const type of [attribute.path, attribute.pathTo]) this.#refuseOutside(text(type));
    // Of a symbolic link it is where it leads, which is the container's own affair.
    if (kind !== command.symlink) this.#refuseOutside(text(attribute.pathLink));
    if (kind === clone) {
      if (/(^|\/)\.\.(\/|$)/.test(text(attribute.clonePath) ?? "")) throw new Error("it clones from outside");
      if (!this.#known.has(hex(attributes.get(attribute.cloneUuid)))) throw new Error("it clones from another volume");
    }
    if (following.has(kind) && path !== undefined && this.#find(path)?.isLink) {
      throw new Error(`${JSON.stringify(path)} is written through a symbolic link`);
    }
    if (kind === command.makeNode) {
      const mode = attributes.get(attribute.mode);
      const type = mode ? Number(new DataView(mode.buffer, mode.byteOffset).getBigUint64(0, true)) & nodeType : 0;
      if (type === blockDevice || type === characterDevice) throw new Error(`${JSON.stringify(path)} is a device node`);
    }
    if (path === undefined) return;
    if (kind === command.symlink) this.#add(path).isLink = true;
    else if (kind === command.unlink || kind === command.rmdir) this.#take(path);
    else if (kind === command.rename) {
      const moved = this.#take(path), to = text(attribute.pathTo)!;
      this.#take(to);
      if (!moved) return;
      const target = this.#add(to);
      target.isLink = moved.isLink;
      for (const [name, child] of moved.children) target.children.set(name, child);
    }
  }

  #refuseOutside(path: string | undefined): void {
    if (path === undefined) return;
    const parts = path.split("/");
    if (path.startsWith("/") || parts.includes("..") || path.includes("\0")) {
      throw new Error(`${JSON.stringify(path)} leads out of the backup`);
    }
    let node: Node | undefined = this.#root;
    for (const part of parts) {
      if (node.isLink) throw new Error(`${JSON.stringify(path)} goes through a symbolic link of the backup`);
      node = node.children.get(part);
      if (!node) return;
    }
  }

  #find(path: string): Node | undefined {
    return path.split("/").reduce<Node | undefined>((node, part) => node?.children.get(part), this.#root);
  }

  #add(path: string): Node {
    return path.split("/").reduce((node, part) => {
      let child = node.children.get(part);
      if (!child) node.children.set(part, child = { isLink: false, children: new Map() });
      return child;
    }, this.#root);
  }

  #take(path: string): Node | undefined {
    const parts = path.split("/"), name = parts.pop()!;
    const parent = parts.length === 0 ? this.#root : this.#find(parts.join("/"));
    const found = parent?.children.get(name);
    parent?.children.delete(name);
    return found;
  }
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
  for (let at = commandHeaderBytes; at + 2 <= bytes.length;) {
    const type = view.getUint16(at, true);
    // In the second version the data has no length: it is the rest.
    if (version >= 2 && type === attribute.data) break;
    if (at + 4 > bytes.length) throw new Error("the subvolume's stream is damaged");
    const length = view.getUint16(at + 2, true);
    if (at + 4 + length > bytes.length) throw new Error("the subvolume's stream is damaged");
    found.set(type, bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return found;
}

function hex(bytes: Uint8Array | undefined): string {
  return bytes ? Buffer.from(bytes).toString("hex") : "";
}
