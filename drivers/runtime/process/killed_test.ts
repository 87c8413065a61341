import assert from "node:assert/strict";
import process from "node:process";
import { killed } from "./killed.ts";

Deno.test("what was killed and does not end is named", async () => {
  await killed("c1", { ended: Promise.resolve(), processes: () => assert.fail("it has ended") });
  const never = new Promise<void>(() => {});
  const error =
    /^LidoError: Cannot stop "c1": it was killed 0\.01 s ago, and 5 of its processes have not ended: deno \(pid \d+, state \w.*\), .*, …$/;
  await assert.rejects(
    killed("c1", { ended: never, processes: () => Array(5).fill(process.pid), timeoutMs: 10 }),
    error,
  );
});
