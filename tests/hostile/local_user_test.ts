/** A local user of the host must not become root by a setuid file in a container's tree. */
import assert from "node:assert/strict";
import { chmodSync, copyFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { command, succeed } from "../support/command.ts";
import { Daemon } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";

// setpriv keeps root's capabilities until it calls execve: env, which has none, executes the command.
const nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "env"];

/** @returns Mode bits by path; paths are relative to the daemon's directory. */
function modes(daemon: Daemon, paths: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    paths.map((path) => [path, (statSync(join(daemon.directory, path)).mode & 0o7777).toString(8)]),
  );
}

Deno.test("a local user cannot execute, list or enter what containers have, after an upgrade either", async () => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1", "-s", "fast");
  await daemon.ok("launch", "bb", "c2", "-s", "plain");
  await daemon.ok("snapshot", "c2", "s0");
  const pools = ["fast", "plain"].map((pool) => `storage-pools/${pool}`);
  const kinds = ["containers", "containers-snapshots", "custom", "custom-snapshots", "images"];
  const parents = ["storage-pools", ...pools.flatMap((pool) => kinds.map((kind) => `${pool}/${kind}`))];
  const roots = [`${pools[0]}/containers/c1`, `${pools[1]}/containers/c2`];
  const images = readdirSync(join(daemon.directory, pools[0]!, "images")).map((name) => `${pools[0]}/images/${name}`);
  assert.equal(images.length, 1);
  for (const path of roots) {
    const setuid = join(daemon.directory, path, "rootfs/bin/become-root");
    copyFileSync("/usr/bin/id", setuid);
    chmodSync(setuid, 0o4755);
    assert.equal(await succeed([setuid, "-u"]), "0"); // the file itself is executable: only its parent directories protect it
  }

  const look = async () => {
    for (const path of roots) {
      const directory = join(daemon.directory, path);
      for (
        const argv of [
          [join(directory, "rootfs/bin/become-root"), "-u"],
          ["ls", directory],
          ["ls", join(directory, "..")],
          ["ls", join(directory, "rootfs")],
          ["sh", "-c", `cd ${directory}`],
        ]
      ) {
        const { code, out, err } = await command([...nobody, ...argv]);
        assert.notEqual(code, 0, `a local user did "${argv.join(" ")}": ${out}`);
        assert.match(err, /Permission denied|can't cd/);
      }
    }
    assert.deepEqual(modes(daemon, parents), Object.fromEntries(parents.map((path) => [path, "700"])));
    // Each directory protects itself: the administrator may mount or share a parent elsewhere.
    const guarded = [...roots, ...images];
    assert.deepEqual(modes(daemon, guarded), Object.fromEntries(guarded.map((path) => [path, "100"])));
    for (const name of ["c1", "c2"]) assert.equal(await daemon.ok("exec", name, "--", "id", "-u"), "0");
  };
  await look();

  // Modes that earlier versions set.
  await daemon.terminate();
  for (const path of [...parents, ...roots, ...images]) chmodSync(join(daemon.directory, path), 0o711);
  await daemon.up();
  await look();
  await daemon.ok("restart", "-f", "c1", "c2");
  await daemon.ok("copy", "c2/s0", "c3");
  assert.deepEqual(modes(daemon, [`${pools[1]}/containers/c3`]), { [`${pools[1]}/containers/c3`]: "100" });
  await look();
});
