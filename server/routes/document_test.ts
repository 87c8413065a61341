import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { z } from "zod";
import { newApp, route, sync } from "./route.ts";

Deno.test("what a route asks for behind its path is what it declares", async () => {
  const app = newApp();
  const returns = z.array(z.string());
  const options = { method: "get", path: "/1.0/things", summary: "List things", tag: "things", returns } as const;
  route(app, { ...options, query: ["filter", "recursion"] }, ({ c, query, recursion }) => {
    return sync(c, [String(query("filter")), String(recursion())]);
  });
  route(app, { ...options, path: "/1.0/others" }, ({ c, query }) => sync(c, [query("filter")]));
  const answer = await (await app.request("/1.0/things?filter=x&recursion=1&project=default")).json();
  assert.deepEqual(answer.metadata, ["x", "1"]);
  assert.equal((await app.request("/1.0/others?filter=x")).status, 500);
});

Deno.test("openapi.json has an answer's metadata within LXD's envelope, and every parameter", () => {
  const { paths } = JSON.parse(readFileSync(new URL("../../openapi.json", import.meta.url), "utf8"));
  const { parameters, responses } = paths["/1.0/storage-pools/{pool}/volumes"].get;
  const names = parameters.map((one: { name: string; in: string }) => `${one.in} ${one.name}`);
  assert.deepEqual(names, ["path pool", "query filter", "query recursion", "query project", "query target"]);
  const { allOf } = responses[200].content["application/json"].schema;
  assert.deepEqual(allOf[0], { $ref: "#/components/schemas/Response" });
  assert.equal(allOf[1].properties.metadata.type, "array");
  for (
    const [path, methods] of Object.entries<Record<string, { responses: Record<string, { content?: object }> }>>(paths)
  ) {
    for (const [method, { responses }] of Object.entries(methods)) {
      for (const [status, { content }] of Object.entries(responses)) assert.ok(content, `${method} ${path} ${status}`);
    }
  }
});
