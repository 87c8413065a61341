import assert from "node:assert/strict";
import { messageInWords } from "./reasons.ts";

Deno.test("a message that ends with a code of the kernel's ends with its words", () => {
  const place = 'open ".lido-records"';
  assert.equal(messageInWords(new Error(`${place}: ESTALE`)), `${place}: stale file handle`);
  assert.equal(messageInWords(new Error(`${place}: EXYZ`)), `${place}: EXYZ`);
  assert.equal(
    messageInWords(new Error("ENOENT: no such file or directory, open")),
    "ENOENT: no such file or directory, open",
  );
});
