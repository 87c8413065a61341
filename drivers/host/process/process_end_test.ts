import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { ProcessEnd } from "./process_end.ts";

Deno.test("ProcessEnd.wait() returns when the process ends, and false when the time is over before", async () => {
  const child = spawn("cat", { stdio: ["pipe", "ignore", "ignore"] });
  const ended = once(child, "exit");
  using end = new ProcessEnd(child.pid!);
  assert.equal(end.wait(10), false);
  process.kill(child.pid!, "SIGKILL");
  assert.equal(end.wait(10_000), true);
  await ended;
  assert.throws(() => new ProcessEnd(child.pid!), /ESRCH/);
});
