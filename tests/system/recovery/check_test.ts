/** Plants every kind of leftover on the host: the check reports each, repairs it, and touches nothing else. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

/** The daemon's cgroups that hold its containers, one in each hierarchy. @param init Pid of a container's init. */
async function daemonCgroups(init: number): Promise<string[]> {
  const found = await succeed(["find", "/sys/fs/cgroup", "-path", "*/lido-*/c1/cgroup.procs"]);
  const processes = (path: string) => existsSync(path) ? readFileSync(path, "utf8").split("\n") : []; // another daemon's container may end meanwhile
  return found.split("\n").filter((path) => processes(path).includes(String(init)))
    .map((path) => join(path, "../.."));
}

Deno.test("what is left on the host is told of and mended, and nothing else is touched", async () => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  const pools = join(daemon.directory, "storage-pools");
  for (const pool of ["fast", "plain"]) {
    await daemon.ok("storage", "volume", "create", pool, "v");
    writeFileSync(join(pools, pool, "custom/default_v/data"), pool);
  }
  await daemon.ok("launch", "bb", "c1", "-s", "fast");
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);

  const mount = join(pools, "fast/custom/default_v/mnt");
  const file = join(daemon.directory, "disks/lost.img");
  const cgroups = await daemonCgroups((await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid);
  assert.ok(cgroups.length > 0);
  const planted: Record<string, RegExp> = {};
  const plant = (subject: string, problem: RegExp) => planted[subject] = problem;

  mkdirSync(join(mount, "below"), { recursive: true });
  await succeed(["mount", "-t", "tmpfs", "none", mount]);
  mkdirSync(join(mount, "below"));
  await succeed(["mount", "-t", "tmpfs", "none", join(mount, "below")]);
  plant(mount, /lido did not mount/);
  plant(join(mount, "below"), /lido did not mount/);

  writeFileSync(file, "");
  await succeed(["truncate", "-s", "1M", file]);
  const device = await succeed(["losetup", "-f", "--show", file]);
  rmSync(file);
  plant(device, /was deleted, and no pool's/);

  await succeed(["btrfs", "-q", "subvolume", "create", join(pools, "fast/custom/.lido-restore-default_v")]);
  mkdirSync(join(pools, "plain/custom/.lido-restore-default_v/deep"), { recursive: true });
  for (const pool of ["fast", "plain"]) {
    plant(`pool/${pool}/custom/.lido-restore-default_v`, /cut-off operation left it/);
    mkdirSync(join(pools, pool, "custom-snapshots/default_v"), { recursive: true });
    plant(`pool/${pool}/custom-snapshots/default_v`, /cut-off operation left it/);
  }

  mkdirSync(join(daemon.directory, "run/gone"));
  for (const cgroup of cgroups) mkdirSync(join(cgroup, "gone/below"), { recursive: true });
  plant("instance/gone", /left a directory or a cgroup/);
  mkdirSync(join(pools, "nobody"));
  plant(join(pools, "nobody"), /no pool's/);

  const told = async (...words: string[]) =>
    Object.fromEntries(
      (JSON.parse((await daemon.lido(["admin", "check", "-f", "json", ...words])).out) as {
        subject: string;
        problem: string;
        repaired: boolean;
      }[]).map((one) => [one.subject, one]),
    );
  const before = await told();
  assert.deepEqual(Object.keys(before).sort(), Object.keys(planted).sort());
  for (const [subject, { problem, repaired }] of Object.entries(before)) {
    assert.match(problem, planted[subject]!);
    assert.equal(repaired, false);
  }
  const after = await told("--repair");
  for (const { subject, problem, repaired } of Object.values(after)) assert.ok(repaired, `${subject}: ${problem}`);
  assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  for (const pool of ["fast", "plain"]) {
    assert.equal(await succeed(["cat", join(pools, pool, "custom/default_v/data")]), pool);
  }
  for (const cgroup of cgroups) assert.ok(!existsSync(join(cgroup, "gone")), cgroup);
  assert.equal(await daemon.ok("exec", "c1", "--", "echo", "it goes on"), "it goes on");
});
