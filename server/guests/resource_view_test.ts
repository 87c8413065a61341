import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FakeRuntime } from "../../tests/support/fake_runtime.ts";
import { ResourceView } from "./resource_view.ts";

Deno.test("ResourceView: where no lxcfs is mounted nothing is mounted and nothing said, whatever files are there", async () => {
  const path = mkdtempSync(join(tmpdir(), "lido-view-"));
  const said: string[] = [];
  const say = (_: object, message: string) => void said.push(message);
  try {
    mkdirSync(join(path, "proc"));
    writeFileSync(join(path, "proc/meminfo"), "MemTotal: 1 kB\n");
    for (const at of [path, join(path, "none")]) {
      const log = { info: say, warn: say };
      const view = new ResourceView({ path: at, runtime: new FakeRuntime(), instances: () => ["c1"], log });
      await view.look(true);
      await view.look();
      assert.deepEqual([await view.mounts("c1"), view.warnings(), said], [[], [], []]);
      await view.close();
    }
  } finally {
    rmSync(path, { recursive: true });
  }
});
