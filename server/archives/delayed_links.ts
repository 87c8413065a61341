import type { Member } from "./member.ts";

/** Symbolic links of one tree, kept until everything else is written: so nothing can be written through one, whichever names the filesystem takes
 * for the same. They are written deepest first, so that none is on the path of another. Kept as a tree of names, in which links share directories. */
export class DelayedLinks {
  readonly #top: Node = { name: "", parent: undefined };
  readonly #byDepth: Node[][] = [];
  #bytes = 0;

  /** @throws {Error} When there are more than fit into memory. */
  add(link: Member): void {
    const parts = link.path.split("/");
    let node = this.#top;
    for (const part of parts) {
      const children = node.children ??= new Map();
      let child = children.get(part);
      if (!child) {
        // A copy: a part of a longer string keeps all of it in memory.
        const name = Buffer.from(part, "latin1").toString("latin1");
        children.set(name, child = { name, parent: node });
        this.#bytes += nodeBytes + name.length;
      }
      node = child;
    }
    if (!node.link) (this.#byDepth[parts.length] ??= []).push(node);
    node.link = { ...link, path: "", content: none };
    this.#bytes += linkBytes + link.target.length;
    for (const [name, value] of link.xattrs) this.#bytes += name.length + value.length;
    if (this.#bytes > bytesMax) throw new Error("it has more symbolic links than can be unpacked");
  }

  /** The link at a path. */
  at(path: string): Member | undefined {
    let node: Node | undefined = this.#top;
    for (const part of path.split("/")) node = node?.children?.get(part);
    return node?.link;
  }

  /** Whether a parent of a path is a link. */
  isAbove(path: string): boolean {
    let node: Node | undefined = this.#top;
    for (let start = 0; node.children;) {
      const end = path.indexOf("/", start);
      // The last part is no parent.
      if (end < 0) return false;
      node = node.children.get(path.slice(start, end));
      if (!node) return false;
      if (node.link) return true;
      start = end + 1;
    }
    return false;
  }

  /** Drops the link at a path, which a later entry replaces. */
  forget(path: string): void {
    let node: Node | undefined = this.#top;
    for (const part of path.split("/")) node = node?.children?.get(part);
    if (node) delete node.link;
  }

  *all(): Generator<Member> {
    for (const nodes of this.#byDepth.toReversed()) {
      for (const node of nodes ?? []) if (node.link) yield { ...node.link, path: pathOf(node) };
    }
  }
}

interface Node {
  readonly name: string;
  readonly parent: Node | undefined;
  children?: Map<string, Node>;
  link?: Member;
}

/** Approximate memory for a name and for a link. */
const nodeBytes = 120, linkBytes = 300;
/** Enough for one or two million links. */
const bytesMax = 512 << 20;

async function* none(): AsyncGenerator<Uint8Array> {}

function pathOf(node: Node): string {
  const parts: string[] = [];
  for (let at: Node | undefined = node; at?.parent; at = at.parent) parts.push(at.name);
  return parts.reverse().join("/");
}
