import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { LidoError } from "../../api/errors.ts";
import { ConsoleService, type ConsoleServices } from "./console.ts";

Deno.test("the console of an instance that ends meanwhile is what was written down of it", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-console-"));
  try {
    const ended = () => Promise.reject(new LidoError("bad_request", "The instance is not running"));
    const service = new ConsoleService({
      runtime: { get: () => ({ status: "running" }), consoleContent: ended, clearConsole: ended },
      events: { lifecycle: () => {} },
      logDirectory: () => directory,
    } as unknown as ConsoleServices);
    writeFileSync(join(directory, "console.log"), "the last words\n");
    assert.equal(await text(await service.read("c1", "console.log")), "the last words\n");
    await service.clear("c1");
    assert.equal(readFileSync(join(directory, "console.log"), "utf8"), "");
  } finally {
    rmSync(directory, { recursive: true });
  }
});
