import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { ContainerFiles } from "./container_files.ts";
import type { FileProcesses } from "./file_processes.ts";

Deno.test("files of a container that has ended meanwhile are refused, and no fault", async () => {
  const ended = spawn("true");
  await once(ended, "exit");
  const files = new ContainerFiles({ ask: () => assert.fail("nobody is to be asked") } as unknown as FileProcesses);
  const container = { name: "c1", pid: ended.pid! };
  const refusal = { code: "bad_request", message: "Instance is not running" };
  await assert.rejects(files.read(container, "/etc/passwd"), refusal);
  await assert.rejects(files.exists(container, "/root"), refusal);
});
