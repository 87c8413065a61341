/** A thousand rounds of attaches and detaches against a container that swaps the target. */
import assert from "node:assert/strict";
import { attackMounts } from "../support/hostile_mounts.ts";

Deno.test("a thousand attaches into a container that swaps symlinks at the target", async () => {
  const { attached, refused } = await attackMounts(Number(process.env.LIDO_SOAK_ROUNDS ?? 1000));
  console.log(`${attached} times attached, ${refused} times refused`);
  assert.ok(attached > 0 && refused > 0, "the race was not run");
});
