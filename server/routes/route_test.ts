import assert from "node:assert/strict";
import { z } from "zod";
import { done, newApp, route } from "./route.ts";

Deno.test("a body that is broken off is the client's fault, and not the daemon's", async () => {
  const app = newApp();
  const body = z.object({ name: z.string() });
  route(app, { method: "post", path: "/things", summary: "Make one", tag: "things", body }, ({ c }) => done(c));
  const brokenOff = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode('{"name":')),
    pull: (controller) => controller.error(new Error("aborted")),
  });
  const answer = await app.request("/things", { method: "POST", body: brokenOff });
  assert.equal(answer.status, 400);
  assert.match((await answer.json()).error, /The connection ended before the request's body did/);
});
