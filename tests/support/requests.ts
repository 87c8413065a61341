/** Requests that a hostile client might send, generated from openapi.json: bodies by its schemas and mutated, paths in every encoding, headers,
 * methods and queries. Half of the names in them exist, so that requests pass the first checks. */
import fc from "fast-check";

/** The parts of openapi.json that are used here. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly required?: readonly string[];
}
export interface ApiDocument {
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}
interface Operation {
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> };
}

/** Names and values for the requests. */
export interface Vocabulary {
  /** Values by field, with the fields above it (".source.type") or without, or by the segment of a path. */
  readonly words: Readonly<Record<string, readonly string[]>>;
  readonly configKeys: readonly string[];
  /** Devices, without their type. */
  readonly disks: readonly Readonly<Record<string, string>>[];
  /** Settings that some request accepts. */
  readonly config: Readonly<Record<string, string>>;
  /** Prefix of every path on the host: the sender of these requests is root, and the daemon would obey it. */
  readonly scratch: string;
}

export interface GeneratedRequest {
  readonly bytes: Buffer;
  /** Whether it is valid HTTP and must be answered; otherwise the connection may also just end. */
  readonly isWhole: boolean;
  /** Whether the connection carries further requests before this one is answered. */
  readonly isPipelined: boolean;
  /** For failure messages. */
  readonly line: string;
}

const strange = fc.constantFrom(
  "",
  " ",
  ".",
  "..",
  "../x",
  "a/b",
  "a\0b",
  "a\nb",
  "\ud800",
  "\u202eabc",
  "é",
  "🦀🦀",
  "__proto__",
  "constructor",
  "hasOwnProperty",
  "toString",
  "-x",
  "--help",
  "%s%n",
  "'; DROP TABLE instances; --",
  "$(true)",
  "`true`",
  "a".repeat(64),
  "a".repeat(300),
  "a".repeat(5000),
);
const values = fc.constantFrom(
  ..."true false 0 1 -1 2 0-1 0-3,2 50% 150% 64MiB 1GiB 20MB 10ms/100ms 99999999999999999999 1e3 NaN none auto".split(
    " ",
  ),
  ..."2030-01-01T00:00:00Z 0001-01-01T00:00:00Z 2020-01-01T00:00:00Z soon 1d 5M @daily * snap%d {{x}} default".split(
    " ",
  ),
  ..."gzip none zstd xz /dev/null both:1000:0:1 uid 0 root:1000000:65536 x86_64 aarch64".split(" "),
);
const word = fc.oneof(
  { weight: 4, arbitrary: values },
  { weight: 2, arbitrary: strange },
  { weight: 1, arbitrary: fc.string({ maxLength: 12 }) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 6 }) },
);

const oneOf = <T>(list: readonly T[]) => fc.constantFrom(...list);

/** Generates values from the document's schemas. */
class Values {
  readonly #schemas: Readonly<Record<string, Schema>>;
  readonly #vocabulary: Vocabulary;

  constructor(document: ApiDocument, vocabulary: Vocabulary) {
    this.#schemas = document.components.schemas;
    this.#vocabulary = vocabulary;
  }

  /** @param field Path of the value's field in the body, joined by dots. */
  of(schema: Schema, field: string): fc.Arbitrary<unknown> {
    if (schema.$ref) return this.of(this.#schemas[schema.$ref.split("/").at(-1)!]!, field);
    if (schema.enum) return oneOf(schema.enum);
    if (schema.anyOf) return fc.oneof(...schema.anyOf.map((one) => this.of(one, field)));
    const types = [schema.type ?? "string"].flat();
    const [type] = types;
    const value = type === "object"
      ? this.#object(schema, field)
      : type === "array"
      ? fc.array(this.of(schema.items ?? {}, field), { maxLength: 3 })
      : type === "boolean"
      ? fc.constantFrom(false, false, false, true)
      : type === "integer" || type === "number"
      ? fc.constantFrom(0, 1, 80, 1000, 65535, 4294967294)
      : this.text(field);
    return types.includes("null")
      ? fc.oneof({ weight: 9, arbitrary: value }, { weight: 1, arbitrary: fc.constant(null) })
      : value;
  }

  text(field: string): fc.Arbitrary<string> {
    const { words } = this.#vocabulary;
    const known = words[field] ?? words[field.split(".").at(-1)!];
    return known ? fc.oneof({ weight: 40, arbitrary: oneOf(known) }, { weight: 1, arbitrary: word }) : word;
  }

  #object({ properties, additionalProperties, required = [] }: Schema, field: string): fc.Arbitrary<object> {
    if (!properties) return this.#map(additionalProperties, field);
    const fields = Object.entries(properties).map(([name, schema]) =>
      fc.tuple(
        fc.constant(name),
        this.of(schema, `${field}.${name}`),
        required.includes(name) ? fc.constant(true) : fc.boolean(),
      )
    );
    return fc.tuple(...fields).map((all) =>
      Object.fromEntries(all.filter(([, , isThere]) => isThere).map(([name, value]) => [name, value]))
    );
  }

  #map(schema: Schema | boolean | undefined, field: string): fc.Arbitrary<object> {
    const isDevices = field.endsWith(".devices"), isConfig = field.endsWith(".config");
    const any = isDevices ? this.#device() : typeof schema === "object" ? this.of(schema, "value") : word;
    const keys = isConfig
      ? oneOf(this.#vocabulary.configKeys)
      : isDevices
      ? fc.constantFrom("root", "d1", "d2")
      : strange;
    const entry = fc.oneof(
      ...(isConfig ? [{ weight: 30, arbitrary: oneOf(Object.entries(this.#vocabulary.config)) }] : []),
      { weight: 4, arbitrary: fc.tuple(keys, any) },
      { weight: 1, arbitrary: fc.tuple(strange, any) },
    );
    return fc.array(entry, { maxLength: 2 }).map((entries) => Object.fromEntries(entries));
  }

  #device(): fc.Arbitrary<object> {
    const keys = fc.constantFrom(
      "path",
      "source",
      "pool",
      "size",
      "readonly",
      "recursive",
      "shift",
      "propagation",
      "limits.max",
      "x",
    );
    const change = fc.oneof(
      { weight: 2, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: keys.chain((key) => fc.tuple(fc.constant(key), this.text(key))).map((pair) => [pair]) },
    );
    const types = fc.constantFrom("disk", "disk", "disk", "disk", "disk", "nic", "none", "unix-char");
    return fc.tuple(types, oneOf(this.#vocabulary.disks), change)
      .map(([type, disk, changed]) => ({ type, ...disk, ...Object.fromEntries(changed) }));
  }
}

/** Replacements for any part of a body. */
const wrong: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    0,
    -1,
    0.5,
    1e308,
    2 ** 53,
    -(2 ** 31),
    "",
    [],
    {},
    [[]],
    [null],
    { "": null },
    "a".repeat(70_000),
  ),
  fc.constantFrom(JSON.parse('{"__proto__":{"isAdmin":true}}'), { constructor: { prototype: {} } }, {
    toString: 1,
    length: -1,
  }),
  strange,
);

/** Texts that replace a whole body. */
const brokenBodies = fc.constantFrom(
  ...[
    "",
    "null",
    "[]",
    "1",
    '"text"',
    "{",
    "}",
    '{"a":1,}',
    "{'a':1}",
    '{"name":"c1"}{"name":"c2"}',
    "NaN",
    "\ufeff{}",
    "{}\0",
    '{"a":1,"a":2}',
  ],
  "[".repeat(100_000) + "]".repeat(100_000),
  '{"config":'.repeat(50_000) + "1" + "}".repeat(50_000),
  `{"config":{${Array.from({ length: 20_000 }, (_, index) => `"k${index}":"v"`).join()}}}`,
  `{"name":"${"n".repeat(1_100_000)}"}`,
  `[${"1,".repeat(100_000)}1]`,
  '{"width":1e999,"height":-1e999}',
  '{"name":"\\ud800\\udfff\\u0000"}',
).map((text) => Buffer.from(text));

/** @param at Which part to replace, as a fraction (0 to 1) of the number of all parts. */
function replacePart(value: unknown, at: number, other: unknown): unknown {
  let count = 0;
  const walk = (part: unknown, visit: (part: unknown) => unknown): unknown => {
    const seen = visit(part);
    if (seen !== part) return seen;
    if (Array.isArray(part)) return part.map((each) => walk(each, visit));
    if (typeof part !== "object" || part === null) return part;
    return Object.fromEntries(Object.entries(part).map(([key, each]) => [key, walk(each, visit)]));
  };
  walk(value, (part) => (count++, part));
  let left = Math.floor(at * count);
  return walk(value, (part) => left-- === 0 ? other : part);
}

/** Fields with paths within a container, which are not changed. */
const within = new Set(["path", "cwd", "command"]);

/** Moves every path of the host below the scratch directory. */
function confine(value: unknown, scratch: string, field = ""): unknown {
  if (typeof value === "string") {
    return value.startsWith("/") && !within.has(field) ? scratch + value.replaceAll("..", "up") : value;
  }
  if (Array.isArray(value)) return value.map((each) => confine(each, scratch, field));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, confine(each, scratch, key)]));
}

const escapes = fc.constantFrom(
  ..."%2f %2F..%2F %00 a%00b %252e%252e %2e%2e .. . %ff %c0%ae %ed%a0%80 %f0%9f%a6%80 % %zz %2 %0d%0aX:%20y %20 ; a;b=c a=b __proto__ constructor"
    .split(" "),
  "",
  "\xff\xfe",
  "\xc3\xa9",
  "a".repeat(5000),
  "%61".repeat(3000),
  "a?b",
  "a#b",
  "a\\..\\b",
);

/** Percent-encodes every letter; the path stays the same. */
const encodeAll = (text: string) =>
  [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");

const header = fc.oneof(
  fc.constantFrom(
    "Accept: application/superjson+json",
    "Accept: */*",
    "If-Match: *",
    'If-Match: "0"',
    "If-None-Match: *",
    "Range: bytes=0-0",
    "Range: bytes=9-1,-5",
    "Expect: 100-continue",
    "Expect: nothing",
    "Origin: https://evil.example",
    "Origin: null",
    "Referer: http://[",
    "Sec-Fetch-Site: cross-site",
    "User-Agent: Mozilla/5.0",
    "Host: a b",
    "Host: [::1",
    "X-Forwarded-For: 127.0.0.1",
    "Cookie: a=b; c",
    "Authorization: Basic eDp5",
    "Content-Encoding: gzip",
    "TE: trailers",
    "Trailer: X",
    "Upgrade: h2c",
    "X-LXD-type: directory",
    "X-LXD-type: symlink",
    "X-LXD-type: fifo",
    "X-LXD-uid: -1",
    "X-LXD-uid: 99999999999",
    "X-LXD-mode: 07777",
    "X-LXD-mode: 9",
    "X-LXD-write: append",
    "X-LXD-modify-perm: mode,x",
    "X-LXD-name: ../x",
    "X-LXD-pool: plain",
    "X-LXD-filename: ../../x",
    "X-LXD-public: 1",
    "X-LXD-properties: a=b&__proto__=c",
    "X-LXD-fingerprint: 00",
    "X-LXD-fingerprint: \xff",
    `X-Long: ${"x".repeat(7000)}`,
    Array.from({ length: 90 }, (_, index) => `X-${index}: x`).join("\r\n"),
  ),
  fc.tuple(
    fc.constantFrom("X-LXD-name", "X-LXD-type", "X-LXD-gid", "If-Match", "Accept", "Content-Disposition"),
    fc.string({ maxLength: 20 }),
  )
    // A line break would begin another header.
    .map(([name, value]) => `${name}: ${Buffer.from(value).toString("latin1").replaceAll(/[\r\n\0]/g, "?")}`),
);
/** With one of these the request is not HTTP any more, or another request than it seems. */
const brokenHeader = fc.constantFrom(
  ...[
    "Content-Length: -1",
    "Content-Length: 5x",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5, 6",
    "Transfer-Encoding: gzip",
  ],
  ...[
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding : chunked",
    "no colon",
    ": empty",
    "X: a\0b",
    "X: a\rb",
    " folded: x",
    "X: \x01",
  ],
  ...[
    "Upgrade: websocket\r\nConnection: Upgrade",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 1",
  ],
  `X: ${"x".repeat(200_000)}`,
  Array.from({ length: 3000 }, (_, index) => `X-${index}: x`).join("\r\n"),
);

const types = fc.constantFrom(
  ...["application/json", "application/json", "application/json", "application/json; charset=utf-16", "text/plain", ""],
  ...[
    "application/octet-stream",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/superjson+json",
  ],
);
const binary = fc.oneof(
  fc.uint8Array({ maxLength: 700 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom(
    Buffer.concat([Buffer.from("1f8b0800000000000003", "hex"), Buffer.alloc(300, 7)]),
    Buffer.concat([Buffer.from("fd377a585a0000", "hex"), Buffer.alloc(300, 7)]),
    Buffer.from("hsqs".padEnd(96, "\xff"), "latin1"),
    Buffer.from(
      '--x\r\nContent-Disposition: form-data; name="metadata"; filename="../x"\r\n\r\nabc\r\n--x\r\n\r\n\r\n--x--\r\n',
    ),
    Buffer.alloc(10_240),
  ),
);

const methods = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
  "TRACE",
  "QUERY",
  "PROPFIND",
  "get",
  "X".repeat(50),
  "G\xe9T",
];

function framed(body: Buffer, isChunked: boolean, pieces: number): { header: string; bytes: Buffer } {
  if (!isChunked) return { header: `Content-Length: ${body.length}`, bytes: body };
  const size = Math.max(1, Math.ceil(body.length / pieces));
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size);
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from("\r\n"));
  }
  return { header: "Transfer-Encoding: chunked", bytes: Buffer.concat([...parts, Buffer.from("0\r\n\r\n")]) };
}

/** With more than this unread, the response may be lost: it is sent before the whole request was read, and the connection then ends. */
const unreadMaxBytes = 64 << 10;

const queries = [
  ...["recursion", "filter", "project", "path", "type", "instance", "detach", "force", "secret", "target"],
  ...["all-projects", "__proto__", "%00"],
];
const starts = fc.constantFrom("//", "/./", "/x/../", "http://h/", "/%2e/", "*", "", "\\", "///..//");
const ends = fc.constantFrom("/", "//", "/..", "%2f", "/%2e%2e/", "?", "#x");
const versions = fc.constantFrom("HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "", "FTP/1.1");

/** Would stop the daemon. */
const leftOut = new Set(["PUT /internal/shutdown"]);

export interface Route {
  readonly method: string;
  /** With parameters in braces. */
  readonly path: string;
  readonly schema: Schema | undefined;
}

/** @param document openapi.json. */
export function routesOf(document: ApiDocument): Route[] {
  return Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { requestBody }]) => ({
      method: method.toUpperCase(),
      path,
      schema: requestBody?.content["application/json"]?.schema,
    }))
  );
}

export interface GeneratorOptions {
  /** Only valid HTTP with valid bodies that change something: most other requests fail at the first checks. */
  readonly mild?: boolean;
}

/** @param document openapi.json. */
export function generatedRequests(
  document: ApiDocument,
  vocabulary: Vocabulary,
  { mild = false }: GeneratorOptions = {},
): fc.Arbitrary<GeneratedRequest> {
  const schemaValues = new Values(document, vocabulary);
  const routes = routesOf(document).filter(({ method, path }) =>
    !leftOut.has(`${method} ${path}`) && !(mild && method === "GET")
  );
  /** @param weight How many times as often `usual` is chosen as `other`. */
  const mostly = <T>(weight: number, usual: fc.Arbitrary<T>, other: fc.Arbitrary<T>) =>
    mild ? usual : fc.oneof({ weight, arbitrary: usual }, { weight: 1, arbitrary: other });
  const part = fc.double({ min: 0, max: 0.9999, noNaN: true });
  const encoded = (name: string) => schemaValues.text(name).map((text) => encodeURIComponent(text.toWellFormed()));
  const segment = (part: string, before: string) => {
    const named = /^\{(\w+)\}$/.exec(part)?.[1];
    const name = named === "name" && vocabulary.words[before] ? before : named;
    if (name === undefined) return mostly(15, fc.constant(part), fc.oneof(escapes, fc.constant(encodeAll(part))));
    return mostly(10, encoded(name), fc.oneof(escapes, escapes, schemaValues.text(name).map(encodeAll)));
  };
  const pair = oneOf(queries).chain((name) => fc.tuple(fc.constant(name), mostly(4, encoded(name), escapes)));
  const query = fc.array(pair, { maxLength: 2 }).map((pairs) => pairs.map((pair) => `&${pair.join("=")}`).join(""));
  const target = (path: string) =>
    fc.tuple(
      fc.tuple(...path.split("/").slice(1).map((part, index, all) => segment(part, all[index - 1] ?? ""))),
      mostly(1, fc.constant(""), query),
      mostly(20, fc.constant("/"), starts),
      mostly(20, fc.constant(""), ends),
      // Without timeout=0 a wait lasts as long as the request says.
    ).map(([parts, pairs, start, end]) => `${start}${parts.join("/")}${end}?timeout=0${pairs}`);
  const json = (schema: Schema) => {
    const value = schemaValues.of(schema, "");
    const mutated = fc.tuple(value, part, wrong).map(([value, at, other]) => replacePart(value, at, other));
    return mostly(3, value, mutated).map((value) => Buffer.from(JSON.stringify(confine(value, vocabulary.scratch))));
  };
  const body = (schema: Schema | undefined) =>
    schema
      ? mostly(5, json(schema), fc.oneof(brokenBodies, binary))
      : mostly(2, fc.constant(Buffer.alloc(0)), fc.oneof(brokenBodies, binary, binary));

  return oneOf(routes).chain(({ method, path, schema }) =>
    fc.record({
      method: mostly(15, fc.constant(method), oneOf(methods)),
      target: target(path),
      body: body(schema),
      type: mostly(1, fc.constant("application/json"), types),
      headers: mostly(1, fc.constant<string[]>([]), fc.array(header, { maxLength: 3 })),
      broken: mostly(12, fc.constant(""), brokenHeader),
      version: mostly(40, fc.constant("HTTP/1.1"), versions),
      isChunked: fc.boolean(),
      pieces: fc.integer({ min: 1, max: 20 }),
      pipelined: mostly(15, fc.constant(0), fc.integer({ min: 1, max: 20 })),
      cut: mostly(15, fc.constant(1), part),
      flips: mostly(
        15,
        fc.constant<[number, number][]>([]),
        fc.array(fc.tuple(part, fc.nat(255)), { minLength: 1, maxLength: 4 }),
      ),
    })
  ).map((one) => {
    const line = `${one.method} ${one.target}${one.version && " "}${one.version}`;
    const { header, bytes } = framed(one.body, one.isChunked, one.pieces);
    const head = (isLast: boolean) =>
      [
        line,
        "Host: lido",
        ...(one.type === "" ? [] : [`Content-Type: ${one.type}`]),
        ...one.headers,
        ...(one.broken === "" ? [] : [one.broken]),
        header,
        ...(isLast ? ["Connection: close"] : []),
        "",
        "",
      ].join("\r\n");
    const requests = Array.from(
      { length: one.pipelined + 1 },
      (_, index) => [Buffer.from(head(index === one.pipelined), "latin1"), bytes],
    );
    let all = Buffer.concat(requests.flat());
    for (const [at, value] of one.flips) all[Math.floor(at * all.length)] = value;
    const end = Math.floor(one.cut * all.length);
    all = all.subarray(0, end);
    const isHttp = one.version === "HTTP/1.1" && /^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)$/.test(one.method) &&
      /^(\/|http:)[\x21-\x7e]*$/.test(one.target);
    return {
      bytes: all,
      isPipelined: one.pipelined > 0,
      isWhole: isHttp && all.length < unreadMaxBytes && one.broken === "" && one.cut === 1 && one.flips.length === 0,
      line: line.length > 300 ? `${line.slice(0, 300)}…` : line,
    };
  });
}
