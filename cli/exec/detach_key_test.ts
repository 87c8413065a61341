import assert from "node:assert/strict";
import { DetachKey } from "./detach_key.ts";

const feed = (...typed: string[]) => {
  const key = new DetachKey();
  return typed.map((text) => {
    const { rest, isPressed } = key.feed(new TextEncoder().encode(text));
    return [new TextDecoder().decode(rest), isPressed];
  });
};

Deno.test("Ctrl-a q detaches, in one piece or two, and nothing after it goes on", () => {
  assert.deepEqual(feed("ls\x01qrm"), [["ls", true]]);
  assert.deepEqual(feed("ls\x01", "q"), [["ls", false], ["", true]]);
});

Deno.test("Ctrl-a twice is one; before anything else it goes on with it", () => {
  assert.deepEqual(feed("\x01\x01q"), [["\x01q", false]]);
  assert.deepEqual(feed("\x01", "x", "q"), [["", false], ["\x01x", false], ["q", false]]);
  assert.deepEqual(feed("plain"), [["plain", false]]);
});
