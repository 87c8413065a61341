import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import type { WatchOptions } from "../../drivers/storage/driver.ts";
import { writing } from "../../drivers/storage/tree.ts";
import type { Member } from "./member.ts";
import { writeTree } from "./tree_stream.ts";

/** Unpacks a tree with its numeric owners, modes, extended attributes and, among these, ACLs. Not with tar's option for ACLs: it removes those of
 * files that have them as attributes only, as in archives that LXD writes. Directories get their times last, since links are created after all
 * other members. */
const unpackCommand: readonly string[] = [
  "tar",
  "--extract",
  "--blocking-factor=512", // reads of 256 KiB: with the default, 10 KiB, each side would wait for the other all the time
  "--numeric-owner",
  "--same-owner",
  "--preserve-permissions",
  "--delay-directory-restore",
  "--xattrs",
  "--xattrs-include=*",
  "--directory=/target",
  "--file=-",
];

/** Unpacks members into a directory, each as it was parsed: of the original archive's bytes, tar gets only the contents of files.
 * @param target On the host, trusted.
 * @throws The members' errors; {LidoError} unavailable on a full disk; {CommandError} when the tree cannot be written. */
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
      failure = error; // tar ends because of it, but its own error does not say so
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

/** The error for a full disk or a reached limit: tar's own message says only how much was written. */
function withoutRoom(error: unknown): LidoError | undefined {
  if (!(error instanceof CommandError) || !/Wrote only|No space left|quota exceeded/i.test(error.stderr)) {
    return undefined;
  }
  const [line] = error.stderr.trim().split("\n");
  return new LidoError("unavailable", `No space left on device, or the volume's limit is reached: ${line}`);
}
