/** Files of volumes and instances, as in LXD's API: a file's attributes are in X-LXD-* headers, its content is the body. */
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { LidoError } from "../../api/errors.ts";
import { fileEntrySchema } from "../../api/types.ts";
import type { FileInfo } from "../../drivers/host/files/tree_files.ts";
import { limitUpload } from "../http/stall.ts";
import { download } from "./download.ts";
import {
  deleteFile,
  type FileMaking,
  type FileTree,
  linkTarget,
  listEntries,
  listNames,
  makeFile,
  readFile,
  statFile,
} from "../volumes/files.ts";
import { done, route, type RouteRequest, sync } from "./route.ts";

const idMax = 4_294_967_294;
const linkMaxBytes = 4095;

export interface FilesOptions {
  readonly path: string;
  readonly tag: string;
  /** Opens the tree, which stays mounted until it is disposed of. */
  readonly open: (request: RouteRequest) => Promise<FileTree & AsyncDisposable>;
}

/** Adds GET, HEAD, POST and DELETE of `…/files?path=`. */
export function addFiles(app: OpenAPIHono, { path, tag, open }: FilesOptions): void {
  route(app, {
    method: "get",
    path,
    summary: "A file's content, a directory's names, or (recursion=1) its entries; HEAD for the headers alone",
    tag,
    query: ["path", "recursion"],
    returns: z.array(z.union([z.string(), fileEntrySchema])),
    bytes: "also",
  }, async (request) => {
    const file = pathOf(request);
    await using undo = new AsyncDisposableStack();
    const tree = undo.use(await open(request));
    const info = statFile(tree, file);
    let answer: Response;
    if (request.c.req.method === "HEAD") answer = sync(request.c, null);
    else if (info.type === "file") {
      const { stream, sizeBytes } = readFile(tree, file);
      // The tree is used until the last byte was sent, or the client has disconnected.
      const rest = undo.move();
      stream.once("close", () => void rest.disposeAsync());
      answer = download(request.c, stream, headersOfBytes(sizeBytes));
    } else answer = await show(request, tree, file, info);
    for (const [name, value] of Object.entries(headersOf(info))) answer.headers.set(name, value);
    return answer;
  });

  route(app, {
    method: "post",
    path,
    summary: "Make a file, directory or link, or write a file; by X-LXD-type, -uid, -gid, -mode, -write, -modify-perm",
    tag,
    query: ["path"],
  }, async (request) => {
    const file = pathOf(request);
    const making = makingOf(request);
    await using tree = await open(request);
    const body = request.c.req.raw.body as unknown as ReadableStream<Uint8Array> | null;
    const content = body ? limitUpload(Readable.fromWeb(body)) : Readable.from([]);
    await makeFile(tree, file, making, making.type === "symlink" ? { target: await readTarget(content) } : content);
    return done(request.c);
  });

  route(
    app,
    { method: "delete", path, summary: "Delete a file, link or empty directory", tag, query: ["path"] },
    async (request) => {
      const file = pathOf(request);
      await using tree = await open(request);
      deleteFile(tree, file);
      return done(request.c);
    },
  );
}

function headersOfBytes(length: number): Record<string, string> {
  return { "content-type": "application/octet-stream", "content-length": String(length) };
}

async function show(request: RouteRequest, tree: FileTree, file: string, info: FileInfo): Promise<Response> {
  switch (info.type) {
    case "directory": {
      if (request.recursion() === 0) return sync(request.c, await listNames(tree, file));
      const entries = await listEntries(tree, file);
      return sync(
        request.c,
        entries.map(({ name, info: { type, uid, gid, mode, sizeBytes, modified } }) => ({
          name,
          type,
          uid,
          gid,
          mode,
          size: sizeBytes,
          modified_at: modified.toISOString(),
        })),
      );
    }
    case "symlink": {
      const target = linkTarget(tree, file);
      return new Response(target, { headers: headersOfBytes(Buffer.byteLength(target)) });
    }
    default:
      throw new LidoError("bad_request", `Cannot use "${file}": it is a FIFO, socket or device`);
  }
}

function headersOf({ type, uid, gid, mode, modified }: FileInfo): Record<string, string> {
  return {
    "X-LXD-type": type,
    "X-LXD-uid": String(uid),
    "X-LXD-gid": String(gid),
    "X-LXD-mode": mode.toString(8).padStart(4, "0"),
    // Go's time format.
    "X-LXD-modified": modified.toISOString().replace("T", " ").replace(/\.\d+Z$/, " +0000 UTC"),
  };
}

/** @throws {LidoError} bad_request with LXD's text. */
function pathOf(request: RouteRequest): string {
  const path = request.query("path");
  if (!path) throw new LidoError("bad_request", "Missing path argument");
  if (path.includes("\0")) throw new LidoError("bad_request", "Invalid path: it has a NUL byte");
  return path;
}

function makingOf({ c }: RouteRequest): FileMaking {
  const header = (name: string) => c.req.header(`x-lxd-${name}`) || undefined;
  const type = header("type") ?? "file";
  if (type !== "file" && type !== "directory" && type !== "symlink") {
    throw new LidoError("bad_request", `Bad file type: ${type}`);
  }
  const write = header("write") ?? "overwrite";
  if (write !== "overwrite" && write !== "append") throw new LidoError("bad_request", `Bad file write mode: ${write}`);
  const changes = new Set<"uid" | "gid" | "mode">();
  for (const word of (header("modify-perm") ?? "").split(",").map((word) => word.trim()).filter(Boolean)) {
    if (word !== "uid" && word !== "gid" && word !== "mode") {
      throw new LidoError("bad_request", `Invalid X-LXD-modify-perm "${word}": uid, gid and mode are allowed`);
    }
    changes.add(word);
  }
  return {
    type,
    append: write === "append",
    uid: idOf("uid", header("uid")),
    gid: idOf("gid", header("gid")),
    mode: modeOf(header("mode")),
    changes,
  };
}

function idOf(kind: string, text: string | undefined): number | undefined {
  // LXD's clients send -1 for none.
  if (text === undefined || text === "-1") return undefined;
  if (/^\d{1,10}$/.test(text) && Number(text) <= idMax) return Number(text);
  throw new LidoError("bad_request", `Invalid ${kind} "${text}": a number from 0 to ${idMax} is allowed`);
}

/** Octal with a leading 0, else decimal, as Go reads it. */
function modeOf(text: string | undefined): number | undefined {
  if (text === undefined || text === "-1") return undefined;
  const mode = /^0[0-7]{0,5}$/.test(text) ? parseInt(text, 8) : /^\d{1,4}$/.test(text) ? Number(text) : NaN;
  if (mode <= 0o7777) return mode;
  throw new LidoError("bad_request", `Invalid mode "${text}": 0 to 07777 is allowed`);
}

async function readTarget(content: Readable): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of content) {
    bytes += (chunk as Uint8Array).length;
    if (bytes > linkMaxBytes) throw new LidoError("bad_request", "Invalid link target: it is too long");
    chunks.push(chunk as Uint8Array);
  }
  const target = Buffer.concat(chunks).toString();
  if (target === "" || target.includes("\0")) throw new LidoError("bad_request", "Invalid link target: it is empty");
  return target;
}
