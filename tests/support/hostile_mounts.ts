/** A container that tries in a loop to have mounts made outside its root, while volumes are attached and detached. */
import assert from "node:assert/strict";
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "./command.ts";
import { Daemon } from "./daemon.ts";
import { busyboxImage } from "./image.ts";
import { RawClient } from "./raw.ts";

/** Swaps a directory, a symlink out of the root and an absent path at the target and at its parents, and renames the mount's parent. Each round
 * begins by removing all of them, as far as mounts allow. */
const swapper = (outside: string) =>
  `exec 2>/dev/null; while :; do
    rm -rf /mnt/a /mnt/l /mnt/y /mnt/z; mkdir -p /mnt/a/t /mnt/y/t; ln -sn ${outside} /mnt/l
    rmdir /mnt/a/t; mv -T /mnt/l /mnt/a/t; rm -f /mnt/a/t; mkdir /mnt/a/t
    mv -T /mnt/a /mnt/z; ln -sn ${outside} /mnt/a; rm -f /mnt/a
    mkdir /mnt/a; ln -sn /proc/1/root/../..${outside} /mnt/a/t; rm -f /mnt/a/t; rmdir /mnt/a; mv -T /mnt/y /mnt/a
  done`;

/** Paths below a directory, without mounts. */
function tree(root: string): string[] {
  const found: string[] = [];
  const walk = (at: string) => {
    const info = lstatSync(at);
    const target = info.isSymbolicLink() ? readlinkSync(at) : "";
    found.push([at, info.mode, info.uid, info.gid, target, info.isDirectory() ? "" : info.mtimeMs].join(" "));
    if (info.isDirectory()) { for (const name of readdirSync(at).sort()) walk(join(at, name)); }
  };
  walk(root);
  return found;
}

/** Lines of mountinfo without the fields that differ for each mount: ids and peer groups. */
function mounts(pid: number | "self"): string[] {
  return readFileSync(`/proc/${pid}/mountinfo`, "utf8").trim().split("\n").map((line) =>
    line.split(" ").slice(3, 6).join(" ")
  );
}

/** @param rounds Number of times that the volume is attached and detached. @returns How often the attach succeeded, and how often it was refused. */
export async function attackMounts(rounds: number): Promise<{ attached: number; refused: number }> {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  const outside = join(daemon.directory, "outside");
  mkdirSync(join(outside, "t/deep"), { recursive: true });
  await succeed(["chmod", "-R", "777", outside]);
  await succeed(["chmod", "711", daemon.directory]);
  for (const name of ["hostile", "other"]) await daemon.ok("launch", "bb", name);
  await daemon.ok("storage", "volume", "create", "fast", "v", "security.shifted=true");
  const pidOf = async (name: string) => (await daemon.query(`/1.0/instances/${name}/state`) as { pid: number }).pid;
  const [hostile, other] = [await pidOf("hostile"), await pidOf("other")];
  await daemon.ok("exec", "--detach", "hostile", "--", "sh", "-c", swapper(outside));
  const within = (lines: string[]) => lines.filter((line) => line.includes(daemon.directory));
  const before = {
    host: within(mounts("self")),
    other: mounts(other),
    daemon: within(mounts(daemon.pid)),
    outside: tree(outside),
    etc: tree("/etc"),
  };
  const raw = new RawClient(daemon.directory);
  const path = "/1.0/instances/hostile";
  const put = async (devices: object): Promise<string> => {
    const { body } = await raw.ask("PUT", `${path}?detach=lazy`, {
      ...(await raw.ask("GET", path)).body.metadata,
      devices,
    });
    return (await raw.wait(body.metadata.id)).err;
  };
  let attached = 0, refused = 0;
  const isIn = (pid: number) => mounts(pid).some((line) => line.includes("default_v"));
  for (let round = 0; round < rounds; round++) {
    const error = await put({ v: { type: "disk", pool: "fast", source: "v", path: "/mnt/a/t" } });
    if (error === "") attached++;
    else {
      refused++;
      assert.match(error, /^Failed to start device "v": Cannot mount at "\/mnt\/a\/t" in the instance: /);
      assert.ok(!isIn(hostile), `round ${round}: refused, and mounted all the same`);
    }
    // Every mount is inside the container: neither the host nor another container sees it.
    assert.deepEqual(within(mounts("self")), before.host, `round ${round}`);
    assert.ok(!isIn(other), `round ${round}`);
    assert.equal(await put({}), "", `round ${round}`);
    assert.ok(!isIn(hostile), `round ${round}: it was detached and is still mounted`);
  }
  assert.deepEqual(within(mounts(daemon.pid)), before.daemon);
  assert.deepEqual(mounts(other), before.other);
  assert.deepEqual(tree(outside), before.outside, "something was made or changed outside");
  assert.deepEqual(tree("/etc"), before.etc);
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  return { attached, refused };
}
