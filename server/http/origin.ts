/** Protection against pages of other sites: any page can make a browser send requests here, with the certificate its user chose for this server.
 * A page cannot set the headers Origin, Referer and Sec-Fetch-Site: they identify its requests, which are refused unless its origin is allowed.
 * @see https://fetch.spec.whatwg.org/#http-cors-protocol, https://www.w3.org/TR/fetch-metadata/ */
import { LidoError } from "../../api/errors.ts";

/** LXD's keys, with their meaning. */
export interface OriginSettings {
  get(
    key:
      | "core.https_allowed_origin"
      | "core.https_allowed_methods"
      | "core.https_allowed_headers"
      | "core.https_allowed_credentials",
  ): string | undefined;
}

/** @param name In lower case. */
export type HeaderOf = (name: string) => string | undefined;

/** Types that a page can send only after a CORS preflight, and a form cannot send at all. */
const askedTypes = /^(application\/json|application\/octet-stream)\s*(;|$)/i;

const isTrue = (value: string | undefined) => /^(true|1|yes|on)$/i.test(value ?? "");

/** @param header Header of a request over TLS. @throws {LidoError} forbidden for a request of another site's page; bad_request for a type of body
 * that a browser sends without a preflight. */
export function checkOrigin(method: string, header: HeaderOf, settings: OriginSettings): void {
  const page = pageOf(header);
  const allowed = settings.get("core.https_allowed_origin");
  if (page !== undefined && allowed !== "*" && page !== allowed) throw refused(page);
  const isBrowser = header("origin") !== undefined || header("referer") !== undefined ||
    header("sec-fetch-site") !== undefined || /^Mozilla\//.test(header("user-agent") ?? "");
  if (!isBrowser || method === "GET" || method === "HEAD") return;
  const type = header("content-type");
  // A page that only "*" allows, or whose origin is not known, may only make requests that need a preflight.
  const isAsked = askedTypes.test(type ?? "") || (method !== "POST" && type === undefined);
  const isKnown = header("origin") !== undefined && (page === undefined || page === allowed);
  if (isAsked || (isKnown && (type === undefined || /^multipart\/form-data\b/i.test(type)))) return;
  throw new LidoError(
    "bad_request",
    `Invalid Content-Type "${type ?? ""}" from a browser: application/json or application/octet-stream is allowed`,
  );
}

/** As `checkOrigin`; a browser makes no preflight before a websocket, so "*" is not enough.
 * @throws {LidoError} forbidden */
export function checkWebsocketOrigin(header: HeaderOf, settings: OriginSettings): void {
  const page = pageOf(header);
  if (page !== undefined && page !== settings.get("core.https_allowed_origin")) throw refused(page);
}

/** @returns CORS headers that tell a browser what the settings allow to the request's origin; none if nothing is allowed. */
export function originHeaders(header: HeaderOf, settings: OriginSettings): Record<string, string> {
  const origin = header("origin");
  const allowed = settings.get("core.https_allowed_origin");
  if (origin === undefined || allowed === undefined || (allowed !== "*" && allowed !== origin)) return {};
  const methods = settings.get("core.https_allowed_methods"), headers = settings.get("core.https_allowed_headers");
  return {
    "access-control-allow-origin": allowed,
    vary: "Origin",
    ...(methods === undefined ? {} : { "access-control-allow-methods": methods }),
    ...(headers === undefined ? {} : { "access-control-allow-headers": headers }),
    ...(isTrue(settings.get("core.https_allowed_credentials")) ? { "access-control-allow-credentials": "true" } : {}),
  };
}

/** @param text "*" or "https://HOST[:PORT]". */
export function isOrigin(text: string): boolean {
  return text === "*" || (URL.canParse(text) && new URL(text).origin === text);
}

/** @returns The origin of another site's page that makes the request, "unknown" if the browser hides it; undefined for all other requests. */
function pageOf(header: HeaderOf): string | undefined {
  const site = header("sec-fetch-site");
  const sent = header("origin") ?? originOfUrl(header("referer"));
  if (sent === undefined) {
    return site === undefined || site === "same-origin" || site === "none" ? undefined : "unknown";
  }
  if (sent === "null") return "unknown";
  return isOwn(sent, header("host") ?? "") ? undefined : sent;
}

function originOfUrl(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  return URL.canParse(text) ? new URL(text).origin : "null";
}

/** Some clients of websockets, such as pylxd's, send wss://HOST:PORT of the server itself. */
function isOwn(origin: string, host: string): boolean {
  const match = /^(?:https|wss):\/\/(.+)$/.exec(origin);
  const plain = (text: string) => text.toLowerCase().replace(/:443$/, "");
  return match !== null && plain(match[1]!) === plain(host);
}

function refused(page: string): LidoError {
  return new LidoError(
    "forbidden",
    `Cannot serve a page of "${page}": "core.https_allowed_origin" does not allow it`,
  );
}
