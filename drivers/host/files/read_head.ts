import { closeSync, openSync, readSync } from "node:fs";

const chunkBytes = 1 << 14;

/** Reads a kernel file that may be long, such as the list of a container's mounts.
 * @returns Its first `bytesMax` bytes, or a little more, as text. */
export function readHead(path: string, bytesMax: number): string {
  const file = openSync(path, "r");
  try {
    const chunks: Uint8Array[] = [];
    for (let length = 0; length < bytesMax;) {
      const chunk = new Uint8Array(chunkBytes);
      const count = readSync(file, chunk, 0, chunk.length, null);
      if (count === 0) break;
      chunks.push(chunk.subarray(0, count));
      length += count;
    }
    return Buffer.concat(chunks).toString();
  } finally {
    closeSync(file);
  }
}
