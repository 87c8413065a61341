import assert from "node:assert/strict";
import { yaml } from "./yaml.ts";

Deno.test("times of LXD's structures are times, and text stays text", () => {
  const shown = yaml({
    created_at: "2026-11-25T01:37:00.980Z",
    expires_at: "2026-11-25T01:37:10.000Z",
    name: "2026-11-25T01:37:00.980Z",
    last_used_at: "never",
  });
  assert.equal(
    shown,
    'created_at: 2026-11-25T01:37:00.98Z\nexpires_at: 2026-11-25T01:37:10Z\nname: "2026-11-25T01:37:00.980Z"\n' +
      "last_used_at: never\n",
  );
});
