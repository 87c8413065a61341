import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HostMounts, parseMountInfo } from "./mounts.ts";
import { MountNamespace } from "./namespace.ts";

Deno.test("a mount namespace has the mounts on the way to what is needed, the system's, and no others", async () => {
  const base = mkdtempSync(join(tmpdir(), "lido-namespace-"));
  const mounts = new HostMounts();
  const own = join(base, "own"), pool = join(own, "pool"), others = join(base, "others"), stage = join(base, "stage");
  const made: string[] = [];
  try {
    for (const path of [own, pool, others]) {
      mkdirSync(path);
      await mounts.mount("none", path, "tmpfs");
      made.push(path);
    }
    mkdirSync(stage);
    mkdirSync(join(own, "run"));
    writeFileSync(join(own, "run/file"), "seen");
    const namespace = new MountNamespace(stage, { needed: [join(own, "run")] });
    try {
      const inside = namespace.enter(() => ({
        targets: parseMountInfo(readFileSync("/proc/thread-self/mountinfo", "utf8")).map(({ target }) => target),
        text: readFileSync(join(own, "run/file"), "utf8"),
      }));
      assert.deepEqual(inside.targets.filter((target) => target.startsWith(base)), [own, stage]);
      assert.ok(inside.targets.includes("/proc"));
      assert.equal(inside.text, "seen");
      assert.ok(await mounts.at(others), "the host's own were unmounted");
    } finally {
      namespace.close();
    }
  } finally {
    for (const path of made.reverse()) await mounts.unmount(path);
    rmSync(base, { recursive: true });
  }
});
