import { open } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { LidoError } from "../../api/errors.ts";
import type { Host, PipedCommand, PipeOptions } from "../../drivers/host/host.ts";

export type Compression = "none" | "gzip" | "xz" | "zstd" | "bzip2" | "squashfs";

const signatures: readonly (readonly [Compression, readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["squashfs", [0x68, 0x73, 0x71, 0x73]],
];
export const decompressors: Partial<Record<Compression, readonly string[]>> = {
  gzip: ["gzip", "-dc"],
  xz: ["xz", "-dc"],
  zstd: ["zstd", "-dcq"],
  bzip2: ["bzip2", "-dc"],
};
/** Compressors, by their names in requests. */
export const compressors: Readonly<Record<string, readonly string[] | undefined>> = {
  none: [],
  gzip: ["gzip", "-c"],
  bzip2: ["bzip2", "-c"],
  xz: ["xz", "-c", "-T0"],
  zstd: ["zstd", "-cq", "-T0"],
};

/** Decompresses untrusted input: the tool sees nothing else. */
export function decompress(host: Host, argv: readonly string[], options: PipeOptions): PipedCommand {
  return host.confined({ memoryBytes: decompressorBytes }).pipe(argv, options);
}

export function compress(host: Host, argv: readonly string[], options: PipeOptions): PipedCommand {
  return host.confined({ memoryBytes: decompressorBytes + availableParallelism() * threadBytes }).pipe(argv, options);
}

/** The largest settings of the formats take 128 MiB; an archive that needs more memory than this fails. */
const decompressorBytes = 1 << 30;
/** Maximum for each thread of a compressor, with the address space of its stack and heap. */
const threadBytes = 1 << 30;

/** Number of bytes at the beginning of a file that show its format. */
export const headBytes = 512;

/** @param head The first `headBytes` of a file, or all of it. @returns Undefined when the format is not known. */
export function compressionOf(head: Uint8Array): Compression | undefined {
  for (const [compression, signature] of signatures) {
    if (signature.every((byte, index) => head[index] === byte)) return compression;
  }
  return new TextDecoder().decode(head.subarray(257, 262)) === "ustar" ? "none" : undefined;
}

/** @returns A file's compression, by its first bytes. @throws {LidoError} bad_request when the format is not known. */
export async function detectCompression(file: string): Promise<Compression> {
  const handle = await open(file, "r");
  try {
    const head = new Uint8Array(512);
    await handle.read(head, 0, head.length, 0);
    const found = compressionOf(head);
    if (found) return found;
  } finally {
    await handle.close();
  }
  throw new LidoError(
    "bad_request",
    "Unsupported compression: the image is no tar archive (plain, gzip, xz, zstd, bzip2) and no squashfs",
  );
}
