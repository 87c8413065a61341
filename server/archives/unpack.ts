import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import type { WatchOptions } from "../../drivers/storage/driver.ts";
import { writing } from "../../drivers/storage/tree.ts";
import type { Member } from "./member.ts";
import { writeTree } from "./tree_stream.ts";

/** How a tree comes out of an archive: with its numeric owners, modes, extended attributes and, as such, ACLs. Not with tar's own option for
 * those: it takes away the ACLs of files that have them as attributes only, as in what LXD writes. Directories get their times last, for links
 * are made when all else is there. */
const unpackCommand: readonly string[] = [
  "tar",
  "--extract",
  "--blocking-factor=512", // reads of 256 KiB: with those of 10 each side would wait for the other all the time
  "--numeric-owner",
  "--same-owner",
  "--preserve-permissions",
  "--delay-directory-restore",
  "--xattrs",
  "--xattrs-include=*",
  "--directory=/target",
  "--file=-",
];

/** Unpacks members into a directory, each as it was parsed: tar gets nothing of the bytes that came but the contents of files.
 * @param target Of the host, trusted. @throws What the members throw; {LidoError} unavailable on a full disk; {CommandError} when the tree cannot be made. */
export async function unpackTree(
  host: Host,
  members: AsyncIterable<Member>,
  target: string,
  { signal, progress }: WatchOptions = {},
): Promise<void> {
  let failure: unknown, bytes = 0n;
  const stream = async function* () {
    try {
      for await (const chunk of writeTree(members)) {
        progress?.(bytes += BigInt(chunk.length));
        yield chunk;
      }
    } catch (error) {
      failure = error; // tar, which is ended by it, knows nothing of it
      throw error;
    }
  };
  const stdin = Readable.from(stream(), { objectMode: false, highWaterMark: 1 << 18 });
  const tools = host.confined({ writes: { "/target": target }, capabilities: writing });
  const { stdout, done } = tools.pipe(unpackCommand, { stdin, ...(signal ? { signal } : {}) });
  stdout.resume();
  await done.catch((error) => {
    stdin.destroy();
    signal?.throwIfAborted();
    throw failure ?? withoutRoom(error) ?? error;
  });
}

/** tar says of a full disk, or a limit that is reached, only how far it came. */
function withoutRoom(error: unknown): LidoError | undefined {
  if (!(error instanceof CommandError) || !/Wrote only|No space left|quota exceeded/i.test(error.stderr)) {
    return undefined;
  }
  const [line] = error.stderr.trim().split("\n");
  return new LidoError("unavailable", `No space left on device, or the volume's limit is reached: ${line}`);
}
