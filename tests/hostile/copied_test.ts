/** Instances that are deleted, renamed or restored while they are copied: the copy is whole, or there is none. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { Daemon } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { RawClient } from "../support/raw.ts";

Deno.test("an instance that goes while it is copied is copied whole", async () => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  const raw = new RawClient(daemon.directory);
  const containers = join(daemon.directory, "storage-pools/plain/containers");
  const files = (name: string) =>
    execFileSync("find", [`${containers}/${name}/rootfs`, "-printf", "%P %y %s\\n"]).toString().split("\n")
      .filter((line) => !/ d \d+$/.test(line)).sort();
  const background = async (method: string, path: string, body?: unknown): Promise<string> => {
    const { status, body: answer } = await raw.ask(method, path, body);
    assert.equal(status, 202, JSON.stringify(answer));
    return answer.metadata.id;
  };
  const changes: readonly (readonly [method: string, path: string, body?: unknown])[] = [
    ["DELETE", "/1.0/instances/c1/snapshots/snap0"],
    ["POST", "/1.0/instances/c1/snapshots/snap0", { name: "snap1" }],
    ["POST", "/1.0/instances/c1", { name: "c9" }],
    ["PUT", "/1.0/instances/c1", { restore: "snap0" }],
    ["DELETE", "/1.0/instances/c1"],
  ];
  for (const [method, path, body] of changes) {
    await daemon.ok("init", "bb", "c1", "-s", "plain");
    // Many files, so that the other request comes in the middle of the copy.
    const many = join(containers, "c1/rootfs/many");
    execFileSync("sh", ["-c", `mkdir -p ${many} && cd ${many} && seq 1 1500 | xargs touch`]);
    await daemon.ok("snapshot", "c1", "snap0");
    const whole = files("c1");
    const source = path.includes("/snapshots/") ? "c1/snap0" : "c1";
    const post = {
      name: "c2",
      source: { type: "copy", source },
      devices: { root: { type: "disk", path: "/", pool: "plain" } },
    };
    const copying = await background("POST", "/1.0/instances", post);
    const changing = await background(method, path, body);
    const [copied, changed] = await Promise.all([raw.end(copying), raw.end(changing)]);
    const what = `${method} ${path}`;
    assert.equal(changed.status_code, 200, `${what}: ${changed.err}`);
    if (copied.status_code === 200) assert.deepEqual(files("c2"), whole, what);
    else assert.match(copied.err, /not found/, `${what}: ${copied.err}`); // the other request came first
    for (const url of await daemon.query("/1.0/instances") as string[]) {
      await daemon.ok("delete", url.split("/").at(-1)!);
    }
  }
  assert.doesNotMatch(daemon.log, /"stack"/);
});
