import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ContainerEnd } from "../../../drivers/runtime/runtime.ts";
import { cleanLines, examineExit, explainExit } from "./init_end.ts";

Deno.test("a console's last lines are cleaned and bounded", () => {
  assert.deepEqual(cleanLines("\x1b[0;1;31mred\x1b[0m\r\n\x1b]0;title\x07text\n  \x07\n50%\r100%\n"), [
    "red",
    "text",
    "100%",
  ]);
  assert.deepEqual(cleanLines("a\u202eb\x00\x9bc\td\n"), ["abc d"]);
  assert.equal(cleanLines("x".repeat(5000))[0]!.length, 200);
  assert.equal(cleanLines("line\n".repeat(5000)).length, 10);
  assert.deepEqual(cleanLines("\x1b[\x1b[\x1b"), []);
});

Deno.test("how an init ended, and the likely cause of it", async () => {
  const directory = await mkdtemp(join(tmpdir(), "lido-exit-"));
  const consoleLog = join(directory, "console.log");
  const explain = async (status: ContainerEnd, text: string, config: Record<string, string> = {}) => {
    await writeFile(consoleLog, text);
    const exit = await examineExit(status, { consoleLog, root: directory, init: ["/sbin/init"], config });
    return exit.description + explainExit(exit);
  };
  try {
    assert.equal(await explain({ code: 0 }, "bye\n"), "with exit code 0");
    assert.equal(await explain({ signal: 2 }, "bye\n"), "by switching itself off");
    assert.equal(await explain({ signal: 11 }, ""), "by signal 11 (SIGSEGV): it crashed");
    assert.equal(
      await explain(
        { code: 255 },
        "Failed to create /init.scope control group: Permission denied\r\nExiting PID 1...\r\n",
      ),
      "with exit code 255: it was refused its control groups. Its console ends with: " +
        "Failed to create /init.scope control group: Permission denied | Exiting PID 1...",
    );
    assert.equal(
      await explain(
        { code: 127 },
        "init: error while loading shared libraries: libx.so.1: cannot open shared object file\n",
      ),
      'with exit code 127: the library "libx.so.1" is missing in its image. Its console ends with: ' +
        "init: error while loading shared libraries: libx.so.1: cannot open shared object file",
    );
    assert.equal(await explain({ code: 3 }, "hello\n"), "with exit code 3. Its console ends with: hello");
    const forkFails = "Failed to fork off '(sd-executor)': Resource temporarily unavailable\n";
    assert.match(
      await explain({ code: 255, limitsReached: ["processes"] }, forkFails, { "limits.processes": "1" }),
      /^with exit code 255: it could start no more processes \(limits\.processes is 1\)\. Its console/,
    );
    assert.match(
      await explain({ code: 255 }, forkFails, { "limits.processes": "1" }),
      /no more processes/,
      "what a cgroup has counted goes with it",
    );
    assert.doesNotMatch(await explain({ code: 255 }, forkFails), /no more processes/);
    assert.doesNotMatch(
      await explain({ code: 3, limitsReached: ["processes"] }, "hello\n", { "limits.processes": "99" }),
      /no more processes/,
      "it may have been long ago",
    );
    assert.equal(
      await explain({ code: 2, limitsReached: ["processes"] }, "", { "limits.processes": "0" }),
      "with exit code 2: it could start no more processes (limits.processes is 0)",
    );
    const killedFor = "by signal 9 (SIGKILL): the kernel killed a process of it for want of memory";
    assert.equal(
      await explain({ signal: 9, limitsReached: ["memory"] }, "", { "limits.memory": "1MiB" }),
      `${killedFor} (limits.memory is 1MiB)`,
    );
    assert.equal(
      await explain({ signal: 9, limitsReached: ["memory"] }, ""),
      `${killedFor} (limits.memory is not set)`,
    );
    assert.doesNotMatch(await explain({ signal: 9 }, "", { "limits.memory": "1MiB" }), /limits/);
    assert.equal(await explain({ code: 0, limitsReached: ["memory", "processes"] }, forkFails), "with exit code 0");
    await rm(consoleLog);
    const exit = await examineExit({}, { consoleLog, root: directory, init: ["/sbin/init"], config: {} });
    assert.equal(exit.description + explainExit(exit), "with an exit code that is not known");
  } finally {
    await rm(directory, { recursive: true });
  }
});
