import { createReadStream } from "node:fs";
import type { Readable } from "node:stream";
import { CommandError, type Host } from "../../drivers/host/host.ts";
import { type Compression, decompress, decompressors } from "./compression.ts";
import { readTar, type TarEntry } from "./tar_reader.ts";

/** An archive on disk, read from its beginning. */
export interface OpenArchive {
  readonly entries: AsyncGenerator<TarEntry>;
  /** To be called when all entries were read. @throws {CommandError} When the decompressor failed. */
  end(): Promise<void>;
  /** @returns The decompressor's message if it failed, which says more than the truncation that follows from that. */
  cause(): Promise<string | undefined>;
  close(): void;
  /** How much of the file has been read so far, in bytes. */
  consumed(): bigint;
}

/** @param file A tar archive, or a squashfs, which is read as a tar archive. */
export function openArchive(host: Host, file: string, compression: Compression, signal?: AbortSignal): OpenArchive {
  const isSquashfs = compression === "squashfs";
  const source = isSquashfs ? undefined : createReadStream(file, { highWaterMark: 1 << 18 });
  source?.on("error", () => {}); // the reader of the entries gets the error
  const argv = isSquashfs ? ["sqfs2tar", "--root-becomes", ".", "--no-skip", "/archive"] : decompressors[compression];
  let read = 0n;
  const input = source ? { stdin: source } : { progress: (bytes: bigint) => void (read = bytes) };
  const options = { ...input, ...(signal ? { signal } : {}) };
  const tool = isSquashfs
    ? host.confined({ reads: { "/archive": file }, memoryBytes: squashfsBytes }).pipe(argv!, options)
    : argv && decompress(host, argv, options);
  const stream: Readable = tool?.stdout ?? source!;
  return {
    entries: readTar(stream as AsyncIterable<Uint8Array>),
    end: async () => await tool?.done,
    cause: async () => {
      source?.destroy();
      stream.destroy(); // a tool that still has something to write would wait for ever
      const error = await tool?.done.then(() => undefined, (failure) => failure);
      if (!(error instanceof CommandError)) return undefined;
      return error.stderr.trim().split("\n").at(-1) || (error.code === 127 ? error.message : undefined);
    },
    close: () => {
      stream.destroy();
      source?.destroy();
    },
    consumed: () => source ? BigInt(source.bytesRead) : read,
  };
}

/** For sqfs2tar, which holds the tables of the whole image in memory. */
const squashfsBytes = 2 * 1024 ** 3;
