/** Prints openapi.json, made from the same routes that the daemon serves: `npm run openapi`. */
import { version } from "../api/version.ts";
import type { Context } from "./context.ts";
import { makeApp } from "./routes/app.ts";

interface Schema {
  type?: string | string[];
  $ref?: string;
  required?: string[];
  properties?: Record<string, Schema>;
  items?: Schema;
}

// Declaring routes calls no service, so the context may be empty.
const app = makeApp({} as Context);
const document = app.getOpenAPI31Document({
  openapi: "3.1.0",
  info: {
    title: "lido",
    version,
    description: "LXD's REST API as lido serves it, on a unix socket and over mutual TLS. " +
      "In a request, a field that is null is absent, and a setting that is null is the empty one.",
    license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
  },
});
const components = document.components?.schemas as Record<string, Schema>;
for (const path of Object.values(document.paths ?? {})) {
  for (const { requestBody } of Object.values(path) as { requestBody?: RequestBody }[]) {
    const { $ref } = requestBody?.content["application/json"]?.schema ?? {};
    if ($ref !== undefined) allowNulls(components[$ref.split("/").at(-1)!]!);
  }
}
process.stdout.write(JSON.stringify(document, null, 2) + "\n");

interface RequestBody {
  readonly content: Readonly<Record<string, { readonly schema?: Schema } | undefined>>;
}

/** Allows null for every optional field of a request, as `withoutNulls` does. */
function allowNulls(schema: Schema): void {
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    allowNulls(field);
    const isRequired = schema.required?.includes(name) ?? false;
    if (!isRequired && typeof field.type === "string") field.type = [field.type, "null"];
  }
  if (schema.items) allowNulls(schema.items);
}
