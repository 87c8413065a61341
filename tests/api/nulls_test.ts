/** Clients send null for fields that they do not use: pylxd's `execute()` does so for user, group and cwd. */
import assert from "node:assert/strict";
import { z } from "zod";
import { instanceExecPostSchema } from "../../api/types.ts";
import type { Context } from "../../server/context.ts";
import { makeApp } from "../../server/routes/app.ts";
import { checkValue } from "../../server/routes/route.ts";

/** The body's schema of each request, with its route. */
const bodies = makeApp({} as Context).openAPIRegistry.definitions.flatMap((definition) => {
  if (definition.type !== "route") return [];
  const { method, path, request } = definition.route;
  const body = request?.body as { content: Record<string, { schema: z.ZodType }> } | undefined;
  return body ? [{ name: `${method} ${path}`, schema: body.content["application/json"]!.schema }] : [];
});

interface JsonSchema {
  type?: string | string[];
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  anyOf?: JsonSchema[];
  enum?: unknown[];
  $ref?: string;
  $defs?: Record<string, JsonSchema>;
}

function shape(schema: z.ZodType): JsonSchema {
  const root = z.toJSONSchema(schema, { io: "input", unrepresentable: "any", reused: "inline" }) as JsonSchema;
  return root.$ref === undefined ? root : root.$defs![root.$ref.split("/").at(-1)!]!;
}

/** The smallest accepted value: required fields, and each object or list on the way to a nested field. */
function least(schema: JsonSchema): unknown {
  if (schema.anyOf) return least(schema.anyOf[0]!);
  if (schema.enum) return schema.enum[0];
  const [type] = [schema.type ?? "string"].flat();
  if (type === "object") {
    const fields = Object.entries(schema.properties ?? {});
    return Object.fromEntries(
      fields.filter(([name, field]) => schema.required?.includes(name) || fieldsOf(field).length > 0)
        .map(([name, field]) => [name, least(field)]),
    );
  }
  if (type === "array") return [least(schema.items!)];
  return { boolean: false, integer: 1, number: 1 }[type!] ?? "x";
}

/** Paths of all fields, including those of nested objects and of a list's first element. */
function fieldsOf(schema: JsonSchema): string[][] {
  if (schema.anyOf) return fieldsOf(schema.anyOf[0]!);
  if (schema.items) return fieldsOf(schema.items).map((path) => ["0", ...path]);
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => [
    [name],
    ...fieldsOf(field).map((path) => [name, ...path]),
  ]);
}

/** Copies the value with the field set, or removed. */
function altered(value: unknown, path: readonly string[], field?: unknown): unknown {
  const [name, ...rest] = path;
  const copy = (Array.isArray(value) ? [...value] : { ...value as object }) as Record<string, unknown>;
  if (rest.length > 0) copy[name!] = altered(copy[name!], rest, field);
  else if (field === undefined) delete copy[name!];
  else copy[name!] = field;
  return copy;
}

function outcome(schema: z.ZodType, value: unknown): unknown {
  try {
    return checkValue(schema, value);
  } catch (error) {
    return (error as Error).message;
  }
}

Deno.test("in every request, a field that is null is one that is absent", () => {
  let count = 0;
  assert.ok(bodies.length > 40, "the routes' bodies were found");
  for (const { name, schema } of bodies) {
    const described = shape(schema);
    const value = least(described);
    assert.equal(typeof outcome(schema, value), "object", `${name}: ${outcome(schema, value)}`);
    for (const path of fieldsOf(described)) {
      const absent = outcome(schema, altered(value, path));
      const given = outcome(schema, altered(value, path, null));
      // `profiles: null` and `expires_at: null` reach the service, which treats null as absent.
      const plain = (result: unknown) =>
        JSON.stringify(result, (_, field) => field === null ? undefined : field) ?? result;
      assert.deepEqual(plain(given), plain(absent), `${name}: ${path.join(".")}`);
      if (typeof given === "string") assert.match(given, /^Invalid value for "[\w.-]+": .*(required|allowed)$/, name);
      count++;
    }
    assert.deepEqual(outcome(schema, null), outcome(schema, {}), `${name}: the body itself`);
    assert.equal(outcome(schema, []), "Invalid request: an object is required, not a list", name);
  }
  assert.ok(count > 150, `${count} fields were tried`);
});

Deno.test("what pylxd's execute() sends is what it means", () => {
  const post = {
    command: ["ls", "-l"],
    environment: null,
    "wait-for-websocket": true,
    interactive: false,
    user: null,
    group: null,
    cwd: null,
    width: null,
    height: null,
    "record-output": null,
  };
  const checked = checkValue(instanceExecPostSchema, post);
  assert.deepEqual(checked, checkValue(instanceExecPostSchema, { command: ["ls", "-l"], "wait-for-websocket": true }));
  assert.deepEqual([checked.user, checked.group, checked.cwd, checked.environment], [0, 0, "", {}]);
});

Deno.test("a null has its own meaning where the schema has one, and is empty in a map or a list", () => {
  const schema = z.object({
    profiles: z.array(z.string()).nullish(),
    config: z.record(z.string(), z.string()).default({}),
    devices: z.record(z.string(), z.record(z.string(), z.string())).default({}),
    size: z.number().default(3),
  }).loose();
  const given = {
    profiles: null,
    config: { a: null, b: "c" },
    devices: { d: { e: null }, f: null },
    size: null,
    g: null,
  };
  assert.deepEqual(checkValue(schema, given), {
    profiles: null,
    config: { a: "", b: "c" },
    devices: { d: { e: "" }, f: {} },
    size: 3,
  });
  assert.deepEqual(given.config, { a: null, b: "c" });
  assert.deepEqual(checkValue(instanceExecPostSchema, { command: ["echo", null] }).command, ["echo", ""]);
});
