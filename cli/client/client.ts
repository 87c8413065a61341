/** The daemon's API as typed calls: opens the envelopes, and turns errors into `ApiError` with the daemon's message. */
import type { Operation } from "../../api/types.ts";
import { type Endpoint, localEndpoint } from "./endpoint.ts";
import { ApiError } from "./errors.ts";
import { type Reply, type Transport, transportFor } from "./transport.ts";

export interface Envelope {
  type: "sync" | "async" | "error";
  metadata: unknown;
  operation?: string;
  error?: string;
  /** What lido adds to LXD's own text. */
  error_detail?: string;
  error_code?: number;
}

/** A value with the ETag it had when it was read. */
export interface Tagged<T> {
  value: T;
  etag: string | undefined;
}

/** Opens an envelope.
 * @throws {ApiError} If it holds an error, or the reply is not an envelope. */
export function openEnvelope(reply: Reply): Envelope {
  let envelope: Envelope;
  try {
    envelope = JSON.parse(reply.text) as Envelope;
  } catch {
    throw new ApiError(reply.status, `Unexpected reply (HTTP ${reply.status}): ${reply.text.slice(0, 200).trim()}`);
  }
  if (envelope.type === "error" || reply.status >= 400) {
    throw new ApiError(
      reply.status,
      envelope.error_detail || envelope.error || `Request failed (HTTP ${reply.status})`,
    );
  }
  return envelope;
}

export class Client {
  readonly endpoint: Endpoint;
  readonly transport: Transport;

  constructor(endpoint: Endpoint = localEndpoint(), transport: Transport = transportFor(endpoint)) {
    this.endpoint = endpoint;
    this.transport = transport;
  }

  /** Sends one request and opens the envelope of the reply. */
  async request(method: string, path: string, body?: unknown, etag?: string): Promise<Envelope> {
    const headers: Record<string, string> = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (etag !== undefined) headers["If-Match"] = etag;
    const text = body === undefined ? undefined : JSON.stringify(body);
    return openEnvelope(await this.transport({ method, path, headers, body: text }));
  }

  async get<T>(path: string): Promise<T> {
    return (await this.request("GET", path)).metadata as T;
  }

  /** Content without an envelope, such as a log. @throws {ApiError} If there is none. */
  async text(path: string): Promise<string> {
    const reply = await this.transport({ method: "GET", path });
    if (reply.status >= 400) openEnvelope(reply);
    return reply.text;
  }

  /** As `get`, with the ETag to send back in `put`. */
  async getTagged<T>(path: string): Promise<Tagged<T>> {
    const reply = await this.transport({ method: "GET", path });
    return { value: openEnvelope(reply).metadata as T, etag: reply.header("etag") };
  }

  /** A change. If it runs in the background, waits for its end.
   * @returns The finished operation, or undefined when the change was made at once.
   * @throws {ApiError} If the daemon refuses or the operation fails. */
  async change(
    method: "POST" | "PUT" | "PATCH" | "DELETE",
    path: string,
    body?: unknown,
    options: { etag?: string } = {},
  ): Promise<Operation | undefined> {
    const envelope = await this.request(method, path, body, options.etag);
    if (envelope.type !== "async") return undefined;
    return await this.waitFor(envelope.metadata as Operation);
  }

  /** Waits for the end of an operation, however long it takes.
   * @throws {ApiError} If it failed or was cancelled. */
  async waitFor(operation: Operation): Promise<Operation> {
    const finished = await this.waitQuietly(operation);
    if (finished.status_code !== 200) throw new ApiError(finished.status_code, finished.err || finished.status);
    return finished;
  }

  /** As `waitFor`, but a failed operation is returned, not thrown. */
  async waitQuietly(operation: Operation): Promise<Operation> {
    let latest = operation;
    while (latest.status_code < 200) {
      latest = await this.get<Operation>(`/1.0/operations/${operation.id}/wait?timeout=-1`);
    }
    return latest;
  }

  /** Closes idle kept-alive connections. */
  async close(): Promise<void> {
    if (process.versions.bun === undefined || this.endpoint.kind === "https") {
      (await import("./http.ts")).closeConnections(this.endpoint);
    }
  }
}

/** A path with its parts escaped: url`/1.0/instances/${name}`. */
export function url(parts: TemplateStringsArray, ...values: string[]): string {
  return parts.reduce((path, part, index) => path + encodeURIComponent(values[index - 1] ?? "") + part);
}
