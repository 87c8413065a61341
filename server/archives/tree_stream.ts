import { DelayedLinks } from "./delayed_links.ts";
import type { Member } from "./member.ts";
import { paddingOf, shown } from "./tar_fields.ts";
import { encodeHeader, endOfArchive, tarPadding } from "./tar_writer.ts";

/** Small pieces are joined into chunks of this size: each chunk costs a turn of the loop and a write. */
const gatherBytes = 64 * 1024;

/** Checks the members of one tree against each other, in the archive's order. */
export class TreeCheck {
  readonly links = new DelayedLinks();

  /** @returns What to write now; nothing for a symbolic link, which comes last. @throws {Error} */
  admit(member: Member): Member | undefined {
    if (this.links.isAbove(member.path)) throw new MemberError(member, "goes through a symbolic link of the archive");
    if (member.type === "symlink") {
      this.links.add(member);
      return undefined;
    }
    // A hard link to a symbolic link becomes a symbolic link of its own; only the inode number differs.
    const link = member.type === "link" ? this.links.at(member.target) : undefined;
    if (link) {
      this.links.add({ ...link, path: member.path });
      return undefined;
    }
    if (member.type === "link" && this.links.isAbove(member.target)) {
      throw new MemberError(member, "is a hard link that goes through a symbolic link of the archive");
    }
    this.links.forget(member.path);
    return member;
  }
}

/** The error for an entry that conflicts with others of its tree. */
export class MemberError extends Error {
  readonly path: string;
  readonly why: string;

  constructor({ path }: Pick<Member, "path">, why: string) {
    super(`${shown(path)} ${why}`);
    this.path = path;
    this.why = why;
  }
}

/** Writes members as an archive that every tar reads in the same way: it has only parsed content, names are canonical, symbolic links come last. */
export async function* writeTree(members: AsyncIterable<Member>): AsyncGenerator<Uint8Array> {
  const check = new TreeCheck();
  const gathered = new Gathered();
  for await (const member of members) {
    const now = check.admit(member);
    if (!now) continue;
    const { header, contentBytes } = encodeHeader(now);
    yield* gathered.add(header);
    let sent = 0;
    if (contentBytes > 0) {
      for await (const part of now.content()) {
        sent += part.length;
        yield* gathered.add(part);
      }
    }
    if (sent !== contentBytes) throw new MemberError(now, `has ${sent} bytes instead of ${contentBytes}`);
    if (paddingOf(contentBytes) > 0) yield* gathered.add(tarPadding(contentBytes));
  }
  for (const link of check.links.all()) yield* gathered.add(encodeHeader(link).header);
  yield* gathered.add(endOfArchive);
  yield* gathered.rest();
}

/** Joins small pieces into chunks; large ones are passed on as they are. */
class Gathered {
  #buffer = Buffer.allocUnsafeSlow(gatherBytes);
  #filled = 0;

  *add(part: Uint8Array): Generator<Uint8Array> {
    if (this.#filled + part.length > gatherBytes) yield* this.rest();
    if (part.length > gatherBytes / 2) {
      yield* this.rest();
      yield part;
      return;
    }
    this.#buffer.set(part, this.#filled);
    this.#filled += part.length;
  }

  *rest(): Generator<Uint8Array> {
    if (this.#filled === 0) return;
    yield this.#buffer.subarray(0, this.#filled);
    // A new buffer, since the consumer may still use the chunk.
    this.#buffer = Buffer.allocUnsafeSlow(gatherBytes);
    this.#filled = 0;
  }
}
