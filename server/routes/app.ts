import type { OpenAPIHono } from "@hono/zod-openapi";
import { LidoError } from "../../api/errors.ts";
import type { Context } from "../context.ts";
import type { UpgradeHandler } from "../http/server.ts";
import { checkOrigin, checkWebsocketOrigin, originHeaders } from "../http/origin.ts";
import { peerOfRequest } from "../http/peers.ts";
import { logged } from "../http/requests.ts";
import { checkRoutes } from "./check.ts";
import { certificateRoutes } from "./certificates.ts";
import { eventStream } from "./events.ts";
import { execSessionRoutes } from "./exec_sessions.ts";
import { imageRoutes } from "./images.ts";
import { instanceRoutes } from "./instances.ts";
import { operationRoutes } from "./operations.ts";
import { profileRoutes } from "./profiles.ts";
import { failure, newApp } from "./route.ts";
import { recoverRoutes } from "./recover.ts";
import { serverRoutes } from "./server.ts";
import { snapshotGroupRoutes } from "./snapshot_groups.ts";
import { storagePoolRoutes } from "./storage_pools.ts";
import { storageVolumeRoutes } from "./storage_volumes.ts";
import { metadataRoutes } from "./metadata.ts";
import { warningRoutes } from "./warnings.ts";

/** Requests that a client without trust may make. */
const forStrangers = new Set(["GET /", "GET /1.0", "POST /1.0/certificates"]);
/** Enough for a certificate and a password. */
const strangersBodyMaxBytes = 16 << 10;

/** Adds notes to an answer's metadata. Not to an operation's, which has them itself, nor to a list or a text, which has no place for them. */
async function withNotes(response: Response, notes: readonly string[]): Promise<Response> {
  if (!response.ok || !response.headers.get("content-type")?.startsWith("application/json")) return response;
  const answer = await response.clone().json() as { type?: unknown; metadata?: unknown };
  const metadata = answer.metadata ?? {};
  if (answer.type !== "sync" || typeof metadata !== "object" || Array.isArray(metadata)) return response;
  const before = (metadata as { notes?: unknown }).notes;
  const all = [...(Array.isArray(before) ? before : []), ...notes];
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return new Response(JSON.stringify({ ...answer, metadata: { ...metadata, notes: all } }), {
    status: response.status,
    headers,
  });
}

/** The whole API as one Hono app. */
export function makeApp(context: Context): OpenAPIHono {
  const app = newApp();
  app.use((c, next) => logged(context.log, c, next));
  app.use(async (c, next) => {
    await next();
    const explained = c.error && context.explain(c.error);
    if (explained === c.error) return;
    c.error = explained as Error;
    c.res = failure(c, explained);
  });
  app.use(async (c, next) => {
    // Browsers cannot reach the unix socket.
    if (peerOfRequest(c).kind === "local") return await next();
    const header = (name: string) => c.req.header(name);
    const told = originHeaders(header, context.settings);
    // A browser's CORS preflight, which has no certificate.
    if (c.req.method === "OPTIONS" && told["access-control-allow-origin"] !== undefined) return c.body(null, 200, told);
    checkOrigin(c.req.method, header, context.settings);
    await next();
    // A container's file must never be shown as a page of this server.
    for (const [name, value] of Object.entries({ ...told, "x-content-type-options": "nosniff" })) c.header(name, value);
  });
  app.use(async (c, next) => {
    if (!context.trust.allows(peerOfRequest(c))) {
      if (!forStrangers.has(`${c.req.method} ${c.req.path}`)) throw new LidoError("forbidden", "not authorized");
      c.set("bodyMaxBytes", strangersBodyMaxBytes);
    }
    if (c.req.method === "GET") return await next();
    const scope = context.records.scope();
    await scope.run(next);
    // Flush the recovery records before replying: the client may rely on them.
    const notes = await scope.settled();
    if (notes.length > 0) c.res = await withNotes(c.res, notes);
  });
  const parts = [
    serverRoutes,
    operationRoutes,
    storagePoolRoutes,
    storageVolumeRoutes,
    snapshotGroupRoutes,
    imageRoutes,
    profileRoutes,
    instanceRoutes,
    execSessionRoutes,
    certificateRoutes,
    checkRoutes,
    warningRoutes,
    metadataRoutes,
    recoverRoutes,
  ];
  for (const part of parts) app.route("/", part(context));
  return app;
}

const operationSocket = /^\/1\.0\/operations\/([0-9a-f-]{36})\/websocket$/;

/** The API's websockets. */
export function makeUpgrade(
  { events, operations, trust, settings }: Pick<Context, "events" | "operations" | "trust" | "settings">,
): UpgradeHandler {
  return (url, peer, header) => {
    if (peer.kind === "tls") checkWebsocketOrigin(header, settings);
    // An operation's secret is enough, since only its client knows it; as in LXD, whose clients pass it on for migration.
    const isTrusted = trust.allows(peer);
    if (url.pathname === "/1.0/events" && !isTrusted) throw new LidoError("forbidden", "not authorized");
    if (url.pathname === "/1.0/events") return eventStream(events, url.searchParams);
    const id = operationSocket.exec(url.pathname)?.[1];
    if (id === undefined) throw new LidoError("not_found", "not found");
    const secret = url.searchParams.get("secret");
    if (!secret) throw new LidoError("bad_request", "missing secret");
    return operations.get(id).connect(secret);
  };
}
