import assert from "node:assert/strict";
import { withContainer } from "../../../tests/support/running_container.ts";

/** What a container's runtime does in a user namespace of its own. */
const nested = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork"];
const script = "mount -t proc proc /proc && mount -t sysfs sysfs /mnt && ls /mnt/class/net";

for (const nesting of [true, false]) {
  Deno.test(`a container ${nesting ? "with" : "without"} nesting ${nesting ? "lets" : "does not let"} user namespaces mount /proc and /sys`, () =>
    withContainer(async ({ run }) => {
      const { status, output } = await run([...nested, "sh", "-c", script]);
      if (nesting) assert.deepEqual([status, output], [{ code: 0 }, "lo\n"]);
      else assert.match(output, /can't mount|Operation not permitted|permission denied/i);
    }, { nesting }));
}

Deno.test("commands know that they are in a container, as its init does", () =>
  withContainer(async ({ run }) => {
    assert.match((await run(["env"])).output, /^container=lxc$/m);
  }));

Deno.test("a container with nesting starts each time", () =>
  withContainer(async ({ runtime, spec }) => {
    // crun failed one of twenty of them, with nobody else at work.
    for (let round = 0; round < 60; round++) {
      await runtime.destroy(spec.name);
      await runtime.start(spec);
    }
  }, { nesting: true }));
