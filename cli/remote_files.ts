/** Files on the daemon's side, of a volume or of an instance. */
import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import type { FileEntry } from "../api/types.ts";
import { type Envelope, openEnvelope } from "./client/client.ts";
import { ApiError } from "./client/errors.ts";
import { requestStream } from "./client/http.ts";
import type { Io } from "./verb.ts";

export type RemoteType = "file" | "directory" | "symlink";

export interface RemoteInfo {
  readonly type: string;
  readonly mode: number;
}

/** Owner and mode of a new file; those named in `changes` also apply to an existing one. */
export interface Making {
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly mode?: number | undefined;
  readonly changes: readonly ("uid" | "gid" | "mode")[];
}

export class RemoteFiles {
  readonly #io: Io;
  readonly #base: string;

  /** @param base URL path, as in `/1.0/instances/c1/files`. */
  constructor(io: Io, base: string) {
    this.#io = io;
    this.#base = base;
  }

  /** @returns undefined when nothing is there. */
  async stat(path: string): Promise<RemoteInfo | undefined> {
    const reply = await this.#send("HEAD", path);
    reply.resume();
    if (reply.statusCode === 404) return undefined;
    // The reason is in the body, which HEAD does not have.
    if (reply.statusCode !== 200) await textOf(await this.#send("GET", path));
    return infoOf(reply);
  }

  async list(path: string): Promise<FileEntry[]> {
    return (await textOf(await this.#send("GET", path, {}, "&recursion=1"))).metadata as FileEntry[];
  }

  /** @returns The content of a file, or a link's target. */
  async read(path: string): Promise<{ info: RemoteInfo; content: IncomingMessage; sizeBytes: number }> {
    const reply = await this.#send("GET", path);
    if (reply.statusCode !== 200 || reply.headers["content-type"] !== "application/octet-stream") await textOf(reply);
    return { info: infoOf(reply), content: reply, sizeBytes: Number(reply.headers["content-length"] ?? 0) };
  }

  async make(type: RemoteType, path: string, making: Making, body: string | Readable = ""): Promise<void> {
    const { uid, gid, mode, changes } = making;
    const headers = {
      "X-LXD-type": type,
      ...(uid === undefined ? {} : { "X-LXD-uid": String(uid) }),
      ...(gid === undefined ? {} : { "X-LXD-gid": String(gid) }),
      ...(mode === undefined ? {} : { "X-LXD-mode": `0${mode.toString(8)}` }),
      ...(changes.length > 0 ? { "X-LXD-modify-perm": changes.join(",") } : {}),
    };
    await textOf(await this.#send("POST", path, headers, "", body));
  }

  async remove(path: string): Promise<void> {
    await textOf(await this.#send("DELETE", path));
  }

  #send(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    more = "",
    body?: string | Readable,
  ): Promise<IncomingMessage> {
    const query = `${this.#base}?path=${encodeURIComponent(path)}${more}`;
    const typed = body === undefined ? headers : { "Content-Type": "application/octet-stream", ...headers };
    return requestStream(this.#io.client.endpoint, {
      method,
      path: query,
      headers: typed,
      ...(body === undefined ? {} : { body }),
    });
  }
}

function infoOf({ headers }: IncomingMessage): RemoteInfo {
  return { type: String(headers["x-lxd-type"] ?? "file"), mode: parseInt(String(headers["x-lxd-mode"] ?? "0644"), 8) };
}

/** @throws {ApiError} With the daemon's message. */
async function textOf(reply: IncomingMessage): Promise<Envelope> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of reply) chunks.push(chunk as Uint8Array);
  const status = reply.statusCode ?? 0;
  if (status >= 500 && chunks.length === 0) throw new ApiError(status, `Request failed (HTTP ${status})`);
  return openEnvelope({ status, header: () => undefined, text: Buffer.concat(chunks).toString("utf8") });
}
