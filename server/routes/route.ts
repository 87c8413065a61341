/** How a route is declared: one zod object is the type of the body, its check and its document. The answers are LXD's envelopes. */
import { createHash } from "node:crypto";
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context as HonoContext } from "hono";
import superjson from "superjson";
import { z } from "zod";
import { LidoError } from "../../api/errors.ts";
import { withoutNulls } from "../../api/nulls.ts";
import { refusal } from "../../api/refusal.ts";
import { bodyFailure, describeError } from "../http/errors.ts";
import type { Operation } from "../operations/operations.ts";
import { type DocumentedRoute, documentOf, type QueryName } from "./document.ts";

/** A JSON body is a handful of names and keys; image and backup uploads are streams and do not come this way. */
const bodyMaxBytes = 1 << 20;

declare module "hono" {
  interface ContextVariableMap {
    /** Set for a request whose body has a smaller limit than others. */
    bodyMaxBytes: number;
    /** Called when the body of an answer fails after its headers were sent. */
    bodyFailed?: (error: unknown) => void;
  }
}
/** Native clients accept this type, and get dates, 64-bit numbers and maps as such. */
const superjsonType = "application/superjson+json";

export interface RouteRequest<Body = undefined> {
  readonly c: HonoContext;
  readonly body: Body;
  /** A part of the path, decoded. */
  param(name: string): string;
  /** @param name A query parameter that the route declares. */
  query(name: QueryName): string | undefined;
  /** 0 when it is not given. @throws {LidoError} bad_request for anything but 0, 1 or 2. */
  recursion(): number;
}

export interface RouteOptions<Schema extends z.ZodType | undefined> extends DocumentedRoute<Schema> {
  /** Handles the request instead of the handler when its body is a stream of bytes. */
  readonly upload?: (request: RouteRequest) => Promise<Response>;
}

type BodyOf<Schema> = Schema extends z.ZodType ? z.infer<Schema> : undefined;
type Handler<Body> = (request: RouteRequest<Body>) => Response | Promise<Response>;

export function newApp(): OpenAPIHono {
  const app = new OpenAPIHono();
  app.notFound((c) =>
    failure(c, new LidoError("not_found", `not found: ${c.req.method} ${c.req.path}`, { lxdText: "not found" }))
  );
  app.onError((error, c) => failure(c, error));
  return app;
}

/** Adds a route to `app` and its document to the registry. */
export function route<Schema extends z.ZodType | undefined = undefined>(
  app: OpenAPIHono,
  options: RouteOptions<Schema>,
  handler: Handler<BodyOf<Schema>>,
): void {
  const { method, path, body } = options;
  app.openAPIRegistry.registerPath(documentOf(options));
  /** Refuses an undeclared parameter, which openapi.json would lack. */
  const queried = (c: HonoContext, name: QueryName) => {
    if (!options.query?.includes(name)) throw new Error(`${method} ${path} does not declare "${name}" in its query`);
    return c.req.query(name) || undefined;
  };
  app.on(method.toUpperCase(), path.replaceAll(/\{(\w+)\}/g, ":$1"), async (c) => {
    checkProject(c.req.query("project"));
    const isUpload = options.upload && c.req.header("content-type")?.startsWith("application/octet-stream");
    const parsed = body && !isUpload ? await readBody(c, body) : undefined;
    const request = {
      c,
      param: (name: string) => c.req.param(name) ?? "",
      query: (name: QueryName) => queried(c, name),
      recursion: () => {
        const value = queried(c, "recursion") ?? "0";
        if (!/^[012]$/.test(value)) {
          throw new LidoError("bad_request", `Invalid recursion "${value}": 0, 1 or 2 is allowed`);
        }
        return Number(value);
      },
    };
    if (isUpload) return await options.upload!({ ...request, body: undefined });
    return await handler({ ...request, body: parsed as BodyOf<Schema> });
  });
}

/** There is only the project "default". */
function checkProject(name: string | undefined): void {
  if (!name || name === "default") return;
  throw new LidoError("not_found", `Project "${name}" not found: "default" is the only one`);
}

/** @returns The body, checked. @throws {LidoError} too_large, or bad_request with the field and the reason. */
export async function readBody<Schema extends z.ZodType>(c: HonoContext, schema: Schema): Promise<z.infer<Schema>> {
  const text = await readText(c);
  let value: unknown;
  try {
    value = JSON.parse(text === "" ? "{}" : text, refusePrototype);
  } catch (error) {
    if (error instanceof LidoError) throw error;
    throw new LidoError("bad_request", "The request's body is not JSON");
  }
  return checkValue(schema, value);
}

/** Refuses the key `__proto__`, which the next copy of the object would lose silently. */
function refusePrototype(key: string, value: unknown): unknown {
  if (key === "__proto__") throw new LidoError("bad_request", `Invalid option "${key}"`);
  return value;
}

/** @param value The request's JSON, in which null is absent. @throws {LidoError} bad_request with the field and the reason. */
export function checkValue<Schema extends z.ZodType>(schema: Schema, value: unknown): z.infer<Schema> {
  const result = schema.safeParse(withoutNulls(schema, value ?? {}));
  if (result.success) return result.data;
  const { field, reason } = refusal(result.error, value);
  throw new LidoError("bad_request", `Invalid ${field ? `value for "${field}"` : "request"}: ${reason}`);
}

async function readText(c: HonoContext): Promise<string> {
  const maxBytes = c.get("bodyMaxBytes") ?? bodyMaxBytes;
  const tooLarge = () => new LidoError("too_large", `The request's body is larger than ${maxBytes} bytes`);
  if (Number(c.req.header("content-length") ?? 0) > maxBytes) throw tooLarge();
  const stream = c.req.raw.body;
  if (!stream) return "";
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
      size += chunk.length;
      if (size > maxBytes) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (error) {
    throw bodyFailure(error);
  }
  return Buffer.concat(chunks).toString();
}

/** 200 with metadata. */
export function sync(c: HonoContext, metadata: unknown, options: { etag?: unknown } = {}): Response {
  return answer(c, 200, metadata, options.etag === undefined ? {} : { etag: etagOf(options.etag) });
}

/** 200 with empty metadata. */
export function done(c: HonoContext): Response {
  return answer(c, 200, {});
}

/** 201: the thing was created. */
export function created(c: HonoContext, location: string): Response {
  return answer(c, 201, null, { location });
}

/** 202: an operation was started. */
export function background(c: HonoContext, operation: Operation): Response {
  const url = `/1.0/operations/${operation.id}`;
  const body = {
    type: "async",
    status: "Operation created",
    status_code: 100,
    operation: url,
    error_code: 0,
    error: "",
    metadata: operation.view(),
  };
  return reply(c, 202, body, { location: url });
}

export function failure(c: HonoContext, error: unknown): Response {
  const { status, text, detail } = describeError(error);
  return reply(c, status, {
    type: "error",
    status: "",
    status_code: 0,
    operation: "",
    error_code: status,
    error: text,
    ...(detail === undefined ? {} : { error_detail: detail }),
    metadata: null,
  });
}

function answer(c: HonoContext, status: number, metadata: unknown, headers: Record<string, string> = {}): Response {
  const body = { type: "sync", status: "Success", status_code: 200, operation: "", error_code: 0, error: "", metadata };
  return reply(c, status, body, headers);
}

function reply(
  c: HonoContext,
  status: number,
  body: Record<string, unknown>,
  headers: Record<string, string> = {},
): Response {
  const native = c.req.header("accept")?.includes(superjsonType) ?? false;
  const text = JSON.stringify(native ? { ...body, metadata: superjson.serialize(body.metadata) } : body);
  return new Response(text + "\n", {
    status,
    headers: { "content-type": native ? superjsonType : "application/json", ...headers },
  });
}

/** @param value The thing's present settings. */
export function etagOf(value: unknown): string {
  return `"${createHash("sha256").update(JSON.stringify(value)).digest("hex")}"`;
}

/** @param value As given to `sync`. @throws {LidoError} precondition_failed when the settings have changed since the client read them. */
export function checkEtag(c: HonoContext, value: unknown): void {
  const asked = c.req.header("if-match");
  if (!asked || asked === "*") return;
  const plain = (text: string) => text.replaceAll('"', "");
  const current = etagOf(value);
  if (plain(asked) !== plain(current)) {
    throw new LidoError("precondition_failed", `ETag doesn't match: ${plain(current)} vs ${plain(asked)}`);
  }
}
