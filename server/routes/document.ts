/** A route's part of openapi.json: its parameters, and its answers in LXD's envelopes. */
import type { RouteConfig } from "@hono/zod-openapi";
import { z } from "zod";
import { operationSchema } from "../../api/types.ts";

const text = (description: string) => z.string().optional().meta({ description });
/** Every query parameter that a route may have. */
const queries = {
  detach: z.enum(["lazy"]).optional().meta({
    description: "Whether a disk that is in use is detached all the same, to go when it is released",
  }),
  filter: text("What is to be shown, in LXD's language: `status eq running and config.user.x ne 1`"),
  instance: text("Only what belongs to this instance"),
  path: z.string().meta({ description: "Absolute path in the volume" }),
  recursion: z.enum(["0", "1", "2"]).optional().meta({
    description: "0: URLs; 1: what they lead to; 2: with state and snapshots, where there are any",
  }),
  timeout: text("Seconds; negative or absent: as long as it takes"),
} as const;
const project = text('"default": there is one');
const target = text("Name of a cluster member, as LXD's clients may send it; ignored: there is one server");

export type QueryName = keyof typeof queries;

/** How a route is declared. */
export interface DocumentedRoute<Schema extends z.ZodType | undefined> {
  readonly method: "get" | "post" | "put" | "patch" | "delete";
  /** With parts in braces, e.g. "/1.0/storage-pools/{pool}". */
  readonly path: string;
  readonly summary: string;
  readonly tag: string;
  readonly body?: Schema;
  /** Present when its body may be a stream of bytes (application/octet-stream). */
  readonly upload?: unknown;
  /** Its query parameters; every route also has `project`. */
  readonly query?: readonly QueryName[];
  /** Schema of the answer's `metadata`; absent for an operation, or if there is none. */
  readonly returns?: z.ZodType;
  /** "only" if the answer is bytes, not JSON; "also" if it may be either. */
  readonly bytes?: "only" | "also";
}

/** LXD's envelope of every answer that is JSON. */
const envelope = z.object({
  type: z.enum(["sync", "async", "error"]),
  status: z.string(),
  status_code: z.int(),
  operation: z.string().meta({ description: "URL of the operation, for a 202" }),
  error_code: z.int(),
  error: z.string(),
}).meta({ id: "Response" });
const withMetadata = (metadata: z.ZodType) => envelope.and(z.object({ metadata }));
const operation = withMetadata(operationSchema).meta({ id: "OperationResponse" });
const failure = withMetadata(z.null()).and(z.object({ error_detail: z.unknown().optional() })).meta({
  id: "ErrorResponse",
});
const nothing = withMetadata(z.object({ notes: z.array(z.string()).optional() }).nullable()).meta({
  id: "EmptyResponse",
});

const json = (schema: z.ZodType) => ({ "application/json": { schema } });
const bytes = { "application/octet-stream": { schema: z.string().meta({ format: "binary" }) } };

export function documentOf(options: DocumentedRoute<z.ZodType | undefined>): RouteConfig {
  const { method, path, summary, tag, body, returns } = options;
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);
  const isOfServer = path.startsWith("/1.0/");
  const query = {
    ...Object.fromEntries((options.query ?? []).map((name) => [name, queries[name]])),
    ...(isOfServer ? { project } : {}),
    ...(/^\/1\.0\/(instances|containers|storage-pools|images)/.test(path) ? { target } : {}),
  };
  const isChange = method !== "get";
  const answer = returns ? withMetadata(returns) : nothing;
  return {
    method,
    path,
    summary,
    tags: [tag],
    request: {
      ...(names.length > 0 ? { params: z.object(Object.fromEntries(names.map((name) => [name, z.string()]))) } : {}),
      ...(Object.keys(query).length > 0 ? { query: z.object(query) } : {}),
      ...(body ? { body: { required: true, content: { ...json(body), ...(options.upload ? bytes : {}) } } } : {}),
    },
    responses: {
      200: {
        description: "Done",
        content: { ...(options.bytes === "only" ? {} : json(answer)), ...(options.bytes ? bytes : {}) },
      },
      ...(isChange && !returns
        ? {
          201: { description: "Made; `Location` names it", content: json(nothing) },
          202: { description: "Work that goes on", content: json(operation) },
        }
        : {}),
      default: { description: "An error", content: json(failure) },
    },
  };
}
