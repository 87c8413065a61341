import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseMountInfo } from "../../host/mounts/mounts.ts";
import { withContainer } from "../../../tests/support/running_container.ts";

interface Membership {
  /** Mount point of the hierarchy on the host. */
  readonly hierarchy: string;
  /** The process's cgroup, as the host sees it. */
  readonly cgroup: string;
}

/** @returns The cgroup of a process in every hierarchy of the host. */
function membershipsOf(pid: number): Membership[] {
  const mounts = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"));
  return readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n").flatMap((line) => {
    const [, controllers, ...path] = line.split(":");
    const mount = mounts.find(({ type, superOptions }) =>
      controllers === "" ? type === "cgroup2" : type === "cgroup" && superOptions.includes(controllers!.split(",")[0]!)
    );
    return mount ? [{ hierarchy: mount.target, cgroup: path.join(":") }] : [];
  });
}

/** What the container sees: its memberships, and the content of every hierarchy that it can mount. */
const lookInside = `
  cat /proc/1/cgroup /proc/self/cgroup
  mkdir /tmp/tree
  for options in $(sed 's/^[0-9]*:\\([^:]*\\):.*/\\1/' /proc/self/cgroup) v2; do
    if [ $options = v2 ]; then mount -t cgroup2 none /tmp/tree || continue
    else mount -t cgroup -o $options none /tmp/tree || continue; fi
    find /tmp/tree -name 'lido-*' -o -name 'lxc.*' -o -name c1
    sed 's/^0$/a process of the host/p; d' /tmp/tree/cgroup.procs
    umount /tmp/tree
  done`;

for (const kind of ["unprivileged", "privileged"] as const) {
  Deno.test(`a container that is ${kind} has a cgroup of its own in every hierarchy, which its root owns`, () =>
    withContainer(async ({ runtime, run }) => {
      const owner = kind === "privileged" ? 0 : 1_000_000;
      const memberships = membershipsOf(runtime.get("c1")!.pid);
      assert.ok(memberships.length > 0);
      for (const { hierarchy, cgroup } of memberships) {
        assert.match(cgroup, /^\/lido-[0-9a-f]{8}\/c1$/, hierarchy);
        const directory = join(hierarchy, cgroup);
        const delegated = ["", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"];
        for (const file of delegated.filter((name) => name === "" || readdirSync(directory).includes(name))) {
          const { uid, gid } = statSync(join(directory, file));
          assert.deepEqual([uid, gid], [owner, owner], join(directory, file));
        }
        // Its limits and the means to kill it stay the host's.
        for (const file of ["memory.limit_in_bytes", "memory.max", "pids.max", "cgroup.kill", "cgroup.freeze"]) {
          if (readdirSync(directory).includes(file)) assert.equal(statSync(join(directory, file)).uid, 0, file);
        }
      }
      const { output } = await run(["sh", "-c", lookInside]);
      assert.deepEqual(output.trim().split("\n").filter((line) => !/^\d+:[^:]*:\/$/.test(line)), []);
    }, kind === "privileged" ? { idmap: undefined, rootfsShifted: false } : {}));
}

Deno.test("a container starts with its limits of memory, with swap and without", async () => {
  const bytes = 64n * 1024n * 1024n;
  for (const swap of [true, false]) {
    await withContainer(async ({ runtime }) => {
      const groups = readFileSync(`/proc/${runtime.get("c1")!.pid}/cgroup`, "utf8");
      const legacy = /^\d+:memory:(.+)$/m.exec(groups)?.[1];
      const shown = (file: string) => readFileSync(join("/sys/fs/cgroup", file), "utf8").trim();
      if (legacy === undefined) {
        const path = /^0::(.+)$/m.exec(groups)![1]!;
        assert.deepEqual([shown(`${path}/memory.max`), shown(`${path}/memory.swap.max`)], [
          `${bytes}`,
          swap ? "max" : "0",
        ]);
      } else {
        assert.equal(shown(`memory${legacy}/memory.limit_in_bytes`), String(bytes));
        const counted = `memory${legacy}/memory.memsw.limit_in_bytes`;
        if (existsSync(join("/sys/fs/cgroup", counted))) {
          assert.equal(shown(counted), swap ? String(bytes) : "9223372036854771712");
        }
        if (!swap) assert.equal(shown(`memory${legacy}/memory.swappiness`), "0");
      }
    }, { limits: { memory: { bytes, enforce: "hard" }, swap, hugepages: {} } });
  }
});

Deno.test("cgroups that a container made are removed with it, however deep they are", () => {
  let directories: string[] = [];
  return withContainer(async ({ runtime, run }) => {
    directories = membershipsOf(runtime.get("c1")!.pid).map(({ hierarchy, cgroup }) => join(hierarchy, cgroup));
    // Longer than a path may be: twice 18 names of 200 bytes.
    const name = "n".repeat(200), half = Array(18).fill(name).join("/");
    const deep = `mkdir -p ${half} && cd ${half} && mkdir -p ${half}`;
    const { output, status } = await run([
      "sh",
      "-c",
      `mkdir /tmp/tree && mount -t cgroup2 none /tmp/tree && cd /tmp/tree && mkdir -p a/b a/c d && ${deep}`,
    ]);
    assert.deepEqual([status, output], [{ code: 0 }, ""]);
    await runtime.destroy("c1");
    assert.deepEqual(directories.filter((directory) => statSync(directory, { throwIfNoEntry: false })), []);
  });
});

Deno.test("a container may use the devices of its specification as it says, and no others", () =>
  withContainer(async ({ run }) => {
    // /log is the host's log device; it is opened, never read.
    const opens = async (script: string) => (await run(["sh", "-c", script])).status.code === 0;
    assert.ok(await opens("mknod /log c 1 11 && mknod /autofs c 10 235"));
    assert.equal(await opens(": < /log"), true);
    assert.equal(await opens(": >> /log"), false);
    assert.equal(await opens(": < /autofs"), false);
  }, {
    idmap: undefined,
    rootfsShifted: false,
    devices: [{ type: "c", major: 1, minor: 11, access: "r" }],
  }));
