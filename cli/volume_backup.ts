/** Download and upload of a volume's backup, as streams. */
import { once } from "node:events";
import type { WriteStream } from "node:fs";
import { Readable } from "node:stream";
import { operationHeader } from "../api/progress.ts";
import type { Operation } from "../api/types.ts";
import { openEnvelope, url } from "./client/client.ts";
import { reasonOf, UsageError } from "./client/errors.ts";
import { openStdin, openStdout } from "./exec/descriptors.ts";
import { Interruption, metered, OperationView, progressLine, waitWithProgress } from "./output/progress.ts";
import type { Io } from "./verb.ts";

export interface ExportOptions {
  readonly volumeOnly: boolean;
  readonly optimized: boolean;
  readonly compression: string;
}

/** @param path A file that must not exist; "-" is stdout. */
export async function exportVolume(
  io: Io,
  pool: string,
  volume: string,
  path: string,
  options: ExportOptions,
): Promise<void> {
  const { createWriteStream } = await import("node:fs");
  const { rm } = await import("node:fs/promises");
  const { pipeline } = await import("node:stream/promises");
  const { requestStream } = await import("./client/http.ts");
  using line = await progressLine(io);
  using views = new DisposableStack();
  using interruption = new Interruption();
  const { signal } = interruption;
  const isFile = path !== "-";
  // Opened before the daemon starts to work.
  const target = isFile
    ? await opened(createWriteStream(path, { flags: "wx", mode: 0o600 }), path)
    : await openStdout();
  const backups = url`/1.0/storage-pools/${pool}/volumes/custom/${volume}/backups`;
  try {
    const operation = await io.client.change("POST", backups, {
      name: "",
      volume_only: options.volumeOnly,
      optimized_storage: options.optimized,
      compression_algorithm: options.compression,
    });
    const name = operation?.resources.backups?.[0]?.split("/").at(-1) ?? "";
    const backup = `${backups}/${name}`;
    try {
      const reply = await requestStream(io.client.endpoint, { method: "GET", path: `${backup}/export` });
      if (reply.statusCode !== 200) {
        const chunks: Uint8Array[] = [];
        for await (const chunk of reply) chunks.push(chunk as Uint8Array);
        openEnvelope({
          status: reply.statusCode ?? 0,
          header: () => undefined,
          text: Buffer.concat(chunks).toString("utf8"),
        });
      }
      // The daemon knows the volume's size and how much of it was packed, whatever the compression. LXD does not tell.
      const running = reply.headers[operationHeader];
      if (typeof running === "string") views.use(new OperationView(io, running));
      await pipeline(line && !running ? metered(reply, line, volume) : reply, target, { signal });
    } finally {
      await io.client.change("DELETE", backup);
    }
  } catch (error) {
    target.destroy();
    if (isFile) await rm(path, { force: true });
    signal.throwIfAborted();
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (isFile && syscall === "write") throw new Error(`Cannot write "${path}": ${reasonOf(error)}`, { cause: error });
    if (code !== "ECONNRESET") throw error;
    throw new Error("The daemon could not finish the backup; its log says why");
  }
}

/** @throws {UsageError} When the file exists, or cannot be made. */
async function opened(target: WriteStream, path: string): Promise<WriteStream> {
  try {
    await once(target, "open");
    return target;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason = code === "EEXIST" ? "it exists" : code === "ENOENT" ? "no such directory" : reasonOf(error);
    throw new UsageError(`Cannot write "${path}": ${reason}`);
  }
}

/** Sends a stream, with its progress until the daemon answers and reports progress itself; Bun delivers the answer only when all is sent.
 * Ctrl-C ends the upload, and the daemon, whose operation is not known yet, rolls back. */
async function upload<T>(
  io: Io,
  file: Readable,
  name: string,
  totalBytes: number | undefined,
  send: (body: Readable) => Promise<T>,
): Promise<T> {
  using line = await progressLine(io);
  using interruption = new Interruption();
  const { signal } = interruption;
  const body = line ? Readable.from(metered(file, line, name, totalBytes), { objectMode: false }) : file;
  signal.addEventListener("abort", () => body.destroy(signal.reason));
  try {
    return await send(body);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

/** @param path A file; "-" is stdin. @param name Of the new volume; if empty, the backup's. */
export async function importVolume(io: Io, pool: string, path: string, name: string): Promise<Operation> {
  const { createReadStream } = await import("node:fs");
  const { stat } = await import("node:fs/promises");
  const { requestStream } = await import("./client/http.ts");
  const info = path === "-" ? undefined : await stat(path).catch(() => {
    throw new UsageError(`Cannot read "${path}": no such file`);
  });
  const file = path === "-" ? await openStdin() : createReadStream(path, { highWaterMark: 1 << 18 });
  const reply = await upload(
    io,
    file,
    name || path,
    info?.isFile() ? info.size : undefined,
    (body) =>
      requestStream(io.client.endpoint, {
        method: "POST",
        path: url`/1.0/storage-pools/${pool}/volumes/custom`,
        headers: { "Content-Type": "application/octet-stream", "X-LXD-name": name },
        body,
      }),
  );
  const chunks: Uint8Array[] = [];
  for await (const chunk of reply) chunks.push(chunk as Uint8Array);
  const text = Buffer.concat(chunks).toString("utf8");
  const { metadata } = openEnvelope({ status: reply.statusCode ?? 0, header: () => undefined, text });
  return await waitWithProgress(io, metadata as Operation);
}
