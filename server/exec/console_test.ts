import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { LidoError } from "../../api/errors.ts";
import { Poller } from "../../drivers/host/poll/poll.ts";
import { closeFd, makePipe, openPty } from "../../drivers/host/process/process.ts";
import type { ClientSockets } from "./client_sockets.ts";
import { Attached, ConsoleService, type ConsoleServices } from "./console.ts";

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

Deno.test("a window size and input that come after a console was released are passed over", () => {
  const poller = new Poller();
  const { master } = openPty({ width: 80, height: 25 }), output = makePipe();
  try {
    const sockets = { sink: () => ({ write: () => Promise.resolve(), end: () => Promise.resolve(true) }) };
    const terminal = { master, output: output.read, lost: () => undefined, release: () => {} };
    const attached = new Attached(poller, terminal, sockets as unknown as ClientSockets);
    attached.resize({ width: 100, height: 30 });
    attached[Symbol.dispose]();
    attached.resize({ width: 80, height: 25 });
    attached.input.write(Buffer.from("late"));
  } finally {
    closeFd(output.write);
    poller.close();
  }
});
