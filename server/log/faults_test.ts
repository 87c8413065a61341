import assert from "node:assert/strict";
import { command } from "../../tests/support/command.ts";

/** Runs code in a process that logs its faults. */
async function faulty(work: string) {
  const here = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  const program = `import { logFaults } from ${here("./faults.ts")};
import { createLog } from ${here("./log.ts")};
import { Events } from ${here("../events/events.ts")};
logFaults(createLog("debug", new Events()));
${work}
setTimeout(() => {}, 60_000);`;
  const url = `data:application/typescript;base64,${Buffer.from(program).toString("base64")}`;
  const { code, out, err } = await command([
    Deno.execPath(),
    "run",
    "-A",
    "--no-check",
    "--quiet",
    "--config",
    "deno.json",
    url,
  ], {
    cwd: new URL("../..", import.meta.url).pathname,
  });
  const lines = err.trim().split("\n").map((line) => JSON.parse(line));
  return { code, out, lines: lines.map(({ level, error, msg, stack }) => [level, error, msg, typeof stack]) };
}

Deno.test("a fault that nobody catches is the log's last line, with its causes, and ends the process", async () => {
  const last = [60, "outer: the disk is full", "the daemon ends by a fault of its own", "string"];
  const fault = 'new Error("outer", { cause: new Error("the disk is full") })';
  for (const work of [`Promise.reject(${fault});`, `setTimeout(() => { throw ${fault}; }, 1);`]) {
    assert.deepEqual(await faulty(work), { code: 1, out: "", lines: [last] });
  }
});

Deno.test("what a library prints is in the log", async () => {
  const work =
    `console.error(new TypeError("bad")); console.warn("careful", 5); console.info("by the way"); process.exit(3);`;
  assert.deepEqual(await faulty(work), {
    code: 3,
    out: "",
    lines: [
      [50, "bad", "printed by a library", "string"],
      [40, undefined, "careful 5", "undefined"],
      [20, undefined, "by the way", "undefined"],
    ],
  });
});
