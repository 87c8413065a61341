/** The upload of an image's files, as a stream. */
import { Readable } from "node:stream";
import type { Config, Operation } from "../api/types.ts";
import { openEnvelope } from "./client/client.ts";
import { UsageError } from "./client/errors.ts";
import { metered, progressLine } from "./output/progress.ts";
import type { Io } from "./verb.ts";

const boundary = "lido-image-boundary-5f2c8d";

/** @param files The tarball, or its metadata and its root filesystem. @throws {UsageError} For a file that cannot be read. */
export async function importImage(
  io: Io,
  files: readonly string[],
  options: { properties: Config; isPublic: boolean },
): Promise<Operation> {
  const { open } = await import("node:fs/promises");
  const { basename } = await import("node:path");
  await using opened = new AsyncDisposableStack();
  const parts = [];
  for (const path of files) {
    const file = await open(path).catch((error: NodeJS.ErrnoException) => {
      throw new UsageError(`Cannot read "${path}": ${error.code === "ENOENT" ? "no such file" : error.code}`);
    });
    opened.defer(() => file.close());
    const info = await file.stat();
    if (!info.isFile()) throw new UsageError(`Cannot import "${path}": a file is allowed`);
    parts.push({ name: basename(path), sizeBytes: info.size, read: () => file.createReadStream({ autoClose: false }) });
  }
  const headers: Record<string, string> = {
    "X-LXD-filename": parts[0]!.name,
    "X-LXD-public": options.isPublic ? "1" : "0",
    "X-LXD-properties": new URLSearchParams(options.properties).toString(),
  };
  using line = await progressLine(io);
  let body: Readable;
  if (parts.length === 1) {
    headers["Content-Type"] = "application/octet-stream";
    headers["Content-Length"] = String(parts[0]!.sizeBytes);
    body = parts[0]!.read();
  } else {
    headers["Content-Type"] = `multipart/form-data; boundary=${boundary}`;
    body = Readable.from(multipart(parts));
  }
  if (line) {
    body = Readable.from(metered(body, line, "Uploading", parts.reduce((sum, part) => sum + part.sizeBytes, 0)));
  }
  const { requestStream } = await import("./client/http.ts");
  const reply = await requestStream(io.client.endpoint, { method: "POST", path: "/1.0/images", headers, body });
  const chunks: Uint8Array[] = [];
  for await (const chunk of reply) chunks.push(chunk as Uint8Array);
  const text = Buffer.concat(chunks).toString("utf8");
  return openEnvelope({ status: reply.statusCode ?? 0, header: () => undefined, text }).metadata as Operation;
}

async function* multipart(parts: readonly { name: string; read: () => Readable }[]): AsyncGenerator<Uint8Array> {
  for (const [index, part] of parts.entries()) {
    const field = ["metadata", "rootfs"][index];
    const filename = part.name.replaceAll(/["\r\n]/g, "_");
    yield Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="${field}"; filename="${filename}"\r\n` +
        "Content-Type: application/octet-stream\r\n\r\n",
    );
    yield* part.read();
    yield Buffer.from("\r\n");
  }
  yield Buffer.from(`--${boundary}--\r\n`);
}
