/** A container that fills its cgroups with nested ones, wide and deep: the daemon serves other clients while it counts and removes them. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseMountInfo } from "../../drivers/host/mounts/mounts.ts";
import { Daemon } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { SecondClient } from "../support/second_client.ts";

/** Limits within a container's cgroup of version 2. */
const bounds = { "cgroup.max.descendants": 10_000, "cgroup.max.depth": 64 };
const wide = 2_000;

const hierarchies = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).filter(({ target, type }) =>
  target.startsWith("/sys/fs/cgroup") && (type === "cgroup" || type === "cgroup2")
);

/** @returns A script that makes `count` cgroups side by side, and a chain of up to 80, in the hierarchy; it prints the chain's depth and the
 * number made. */
function fill(type: string, options: string, count: number): string {
  return `mkdir -p /tree && mount -t ${type} -o ${options} none /tree && cd /tree && {
    depth=0; while [ $depth -lt 80 ] && mkdir d 2>/dev/null && cd d; do depth=$((depth + 1)); done
    cd /; seq 1 ${count} | (cd /tree && xargs mkdir 2>/dev/null)
    echo $depth $(ls /tree | grep -c '^[0-9]*$'); umount /tree; }`;
}

Deno.test("cgroups that a container makes, wide and deep, keep nobody else from being served", async () => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=plain");
  await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
  await daemon.ok("launch", "bb", "c1");
  await using _second = new SecondClient(daemon.directory);
  const inside = (script: string) => daemon.ok("exec", "c1", "--", "sh", "-c", script);
  const numbers = async (script: string) => (await inside(script)).split(" ").map(Number) as [number, number];

  const [depth, count] = await numbers(fill("cgroup2", "nosuid", wide));
  assert.deepEqual([depth, count], [bounds["cgroup.max.depth"], wide]);
  const pid = (await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid;
  const own = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))![1]!;
  const unified = hierarchies.find(({ type }) => type === "cgroup2")!.target;
  for (const [file, bound] of Object.entries(bounds)) {
    assert.equal(Number(readFileSync(join(unified, own, file), "utf8")), bound, file);
  }
  const legacy = hierarchies.find(({ type, superOptions }) => type === "cgroup" && superOptions.includes("pids"));
  if (legacy) assert.deepEqual(await numbers(fill("cgroup", "pids", wide)), [80, wide]);

  const { processes } = await daemon.query("/1.0/instances/c1/state") as { processes: number };
  assert.ok(processes > 0);
  await daemon.ok("restart", "-f", "c1");
  await daemon.ok("delete", "-f", "c1");
});
