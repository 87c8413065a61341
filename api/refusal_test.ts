import assert from "node:assert/strict";
import { z } from "zod";
import { refusal } from "./refusal.ts";

const schema = z.object({
  name: z.string(),
  source: z.object({ type: z.enum(["image", "copy", "none"]), size: z.number().int().min(1).max(9) }),
  volumes: z.array(z.object({ pool: z.string() })).min(1),
  config: z.record(z.string(), z.string()),
  time: z.union([z.string(), z.date()]),
  strict: z.strictObject({}),
}).partial();

Deno.test("refusal() names the field, what is allowed there and what was given, for each kind of fault", () => {
  const rows: [unknown, string, string][] = [
    [{ source: null }, "source", "an object is required"],
    [{ source: {} }, "source.type", "image, copy or none is allowed"],
    [{ source: 5 }, "source", "an object is required, not a number"],
    [{ source: { type: "x" } }, "source.type", 'image, copy or none is allowed, not "x"'],
    [{ source: { type: "none", size: 1.5 } }, "source.size", "an integer is required, not a number"],
    [{ source: { type: "none", size: "1" } }, "source.size", "a number is required, not a string"],
    [{ source: { type: "none", size: 0 } }, "source.size", "at least 1 is allowed, not 0"],
    [{ source: { type: "none", size: 10 } }, "source.size", "at most 9 is allowed, not 10"],
    [{ volumes: [] }, "volumes", "at least 1 entry is allowed, not a list"],
    [{ volumes: {} }, "volumes", "a list is required, not an object"],
    [{ volumes: [{ pool: 1 }] }, "volumes.0.pool", "a string is required, not a number"],
    [{ config: { a: true } }, "config.a", "a string is required, not a boolean"],
    [{ config: [] }, "config", "an object is required, not a list"],
    [{ time: 1 }, "time", "a string or a time is required, not a number"],
    [{ strict: { a: 1 } }, "strict", 'it has the unknown "a"'],
    [[], "", "an object is required, not a list"],
    [{ name: ["x".repeat(1000)] }, "name", "a string is required, not a list"],
  ];
  for (const [value, field, reason] of rows) {
    assert.deepEqual(refusal(schema.safeParse(value).error!, value), { field, reason });
  }
  const long = { source: "x".repeat(1000) };
  assert.ok(refusal(schema.safeParse(long).error!, long).reason.length < 150);
});
