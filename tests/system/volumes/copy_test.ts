/** Long copies: their progress is shown, Ctrl-C cancels them, and a full disk leaves nothing behind. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { succeed } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { OperationEvents } from "../../support/progress.ts";
import { RawClient } from "../../support/raw.ts";
import { Terminal } from "../../support/terminal.ts";

Deno.test({
  name: "long copies",
  sanitizeOps: false, // node-pty keeps its own threads and handles
  sanitizeResources: false,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    await daemon.ok("storage", "create", "plain", "dir");
    await daemon.ok("storage", "create", "fast", "btrfs", "size=4GiB");
    await daemon.ok("storage", "create", "small", "btrfs", "size=256MiB");
    await daemon.ok("storage", "volume", "create", "plain", "data");
    const path = join(daemon.directory, "storage-pools/plain/custom/default_data");
    // Incompressible and not sparse: copying takes seconds on any filesystem.
    await succeed(["bash", "-c", `head -c 1500000000 /dev/urandom > ${path}/big`]);
    const isClean = async () => {
      assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
      const found = await daemon.query("/1.0/storage-pools/fast/volumes/custom");
      assert.deepEqual(found, []);
    };

    await t.step("what was copied and how fast is shown, and how in the operation", async () => {
      using terminal = new Terminal([executable, "storage", "volume", "copy", "plain/data", "fast/copy"], {
        ...daemon.environment,
      });
      await terminal.sees(/copy: \d+% of [\d.]+[MG]iB \([\d.]+[MG]iB\/s, \d+s left\)/);
      await terminal.sees(/Storage volume copied successfully!/);
      assert.equal(await terminal.ended, 0);
      await daemon.ok("storage", "volume", "delete", "fast", "copy");
    });

    await t.step("Ctrl-C cancels it, and nothing is left", async () => {
      using terminal = new Terminal([executable, "storage", "volume", "copy", "plain/data", "fast/copy"], {
        ...daemon.environment,
      });
      await terminal.sees(/copy: (\d+% of )?[\d.]+[MG]iB/);
      terminal.type("\x03");
      await terminal.sees(/Error: [^\r\n]*cancel/i);
      assert.equal(await terminal.ended, 1);
      await isClean();
    });

    await t.step("by the API: the plan is told, the cancel ends it", async () => {
      const raw = new RawClient(daemon.directory);
      using events = await OperationEvents.open(daemon.directory);
      const source = { type: "copy", pool: "plain", name: "data" };
      const asked = { name: "copy", type: "custom", source };
      const { body } = await raw.ask("POST", "/1.0/storage-pools/fast/volumes/custom", asked);
      const { id } = body.metadata;
      const { metadata } = await events.progress(id);
      assert.equal(metadata?.method, "files");
      assert.match(String(metadata?.reason), /no stream format in common/);
      assert.ok(Number((metadata?.progress as { processed: string }).processed) > 0);
      await raw.ask("DELETE", `/1.0/operations/${id}`);
      assert.equal((await raw.wait(id)).status, "Cancelled");
      await isClean();
    });

    await t.step("a full disk: the reason, and nothing left", async () => {
      await daemon.fails(["storage", "volume", "copy", "plain/data", "small/copy"], /No space left on device/);
      assert.deepEqual(await daemon.query("/1.0/storage-pools/small/volumes/custom"), []);
      const file = join(daemon.directory, "backup");
      await daemon.ok("storage", "volume", "export", "plain", "data", file, "--compression", "none");
      await daemon.fails(["storage", "volume", "import", "small", file], /No space left on device/);
      assert.deepEqual(await daemon.query("/1.0/storage-pools/small/volumes/custom"), []);
      await isClean();
      // The pool still works.
      await daemon.ok("storage", "volume", "create", "small", "after");
    });
  },
});
