/** Filesystems whose process was killed, such as an sshfs: the error of each verb names the device or pool, the path and the reason, no source is
 * taken for missing, and everything works again after a new mount. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { command, succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { HangingFuse } from "../../support/hanging_fuse.ts";
import { busyboxImage } from "../../support/image.ts";
import { PausingFuse } from "../../support/pausing_fuse.ts";

const dead = "transport endpoint is not connected";

Deno.test("sources of disks and pools on a filesystem whose process was killed", async (t) => {
  const places = mkdtempSync(join(tmpdir(), "lido-dead-"));
  using _places = { [Symbol.dispose]: () => rmSync(places, { recursive: true }) };
  for (const name of ["a", "r/sub", "backing", "remote", "unbindable"]) {
    mkdirSync(join(places, name), { recursive: true });
  }
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1");
  for (const name of ["c2", "c3"]) await daemon.ok("init", "bb", name);
  const add = (
    instance: string,
    device: string,
    ...keys: string[]
  ) => ["config", "device", "add", instance, device, "disk", `path=/mnt/${device}`, ...keys];
  const unusable = (path: string, reason = dead) => new RegExp(`Cannot use source path "${path}": ${reason}`);

  await t.step("a disk of the host: added, hot or not, started, and with required=false", async () => {
    const source = join(places, "a");
    await daemon.ok(...add("c2", "d", `source=${source}`));
    await daemon.ok(...add("c3", "d", `source=${source}`, "required=false"));
    await daemon.ok(...add("c1", "late", `source=${source}`));
    {
      await using fuse = await HangingFuse.mount(source);
      await fuse.kill();
      for (const name of ["c1", "c2"]) {
        for (const path of [source, `${source}/below`]) {
          await daemon.fails(add(name, "e", `source=${path}`), unusable(path));
        }
      }
      const refusal = new RegExp(`^Error: Failed to start device "d": ${unusable(source).source}`);
      await daemon.fails(["start", "c2"], refusal);
      // A dead source does not count as missing, in spite of required=false: the container would write into the directory below.
      await daemon.fails(["start", "c3"], refusal);
      await daemon.ok("config", "device", "remove", "c1", "late");
      await daemon.fails(["storage", "create", "x", "dir", `source=${source}`], unusable(source));
      await daemon.fails(["storage", "create", "x", "dir", `source=${source}/below`], unusable(`${source}/below`));
    }
    await daemon.ok("start", "c2");
    await daemon.ok("stop", "-f", "c2");
    await daemon.ok("config", "device", "remove", "c2", "d");
  });

  await t.step("one below a recursive disk", async () => {
    const source = join(places, "r");
    await using fuse = await HangingFuse.mount(join(source, "sub"));
    await fuse.kill();
    await daemon.ok(...add("c1", "r", `source=${source}`, "recursive=true"));
    const below = unusable(join(source, "sub")).source;
    await daemon.fails(["restart", "-f", "c1"], new RegExp(`^Error: Failed to start device "r": ${below}`));
    await daemon.ok("config", "device", "remove", "c1", "r");
    await daemon.ok("start", "c1");
  });

  await t.step("other reasons than that are told, too", async () => {
    symlinkSync("loop", join(places, "loop"));
    await daemon.fails(
      add("c1", "l", `source=${places}/loop`),
      unusable(`${places}/loop`, "too many levels of symbolic links"),
    );
    const unbindable = join(places, "unbindable");
    await succeed(["mount", "-t", "tmpfs", "none", unbindable]);
    try {
      await succeed(["mount", "--make-unbindable", unbindable]);
      await daemon.fails(add("c1", "u", `source=${unbindable}`), unusable(unbindable, "its mount is unbindable"));
    } finally {
      await command(["umount", unbindable]);
    }
    await daemon.fails(add("c1", "m", `source=${places}/none`), /Missing source path ".*\/none" for disk "m"/);
  });

  await t.step("a pool", async () => {
    const [backing, source] = [join(places, "backing"), join(places, "remote")];
    const file = join(places, "backup");
    const root = join(daemon.directory, "storage-pools/away");
    {
      await using fuse = await PausingFuse.mount(backing, source);
      await daemon.ok("storage", "create", "away", "dir", `source=${source}`);
      for (const name of ["v", "w"]) await daemon.ok("storage", "volume", "create", "away", name);
      await daemon.ok(...add("c1", "v", "pool=away", "source=v"));
      await fuse.kill();
      const refusal = new RegExp(`Storage pool "away" is unavailable: .*"(${source}|${root})": ${dead}`);
      const verbs: readonly string[][] = [
        ["storage", "volume", "create", "away", "x"],
        ["storage", "volume", "delete", "away", "w"],
        ["storage", "volume", "snapshot", "away", "v", "s0"],
        ["storage", "volume", "rename", "away", "w", "x"],
        ["storage", "volume", "set", "away", "w", "size=1GiB"],
        ["storage", "volume", "copy", "away/v", "plain/x"],
        ["storage", "volume", "move", "away/w", "plain/x"],
        ["storage", "volume", "export", "away", "v", file],
        ["storage", "volume", "info", "away", "v"],
        ["storage", "volume", "file", "pull", "away", "v/x", "-"],
        add("c1", "w", "pool=away", "source=w"),
        ["init", "bb", "c4", "-s", "away"],
      ];
      // The daemon may have noticed by itself, or notice at the first of these verbs.
      for (const argv of verbs) await daemon.fails(argv, refusal);
      const { out } = await daemon.lido(["admin", "check"]);
      assert.match(out, /pool\/away .*is unavailable/);
      await daemon.ok("config", "device", "remove", "c1", "v");
      await daemon.ok("storage", "volume", "create", "plain", "other");
      await daemon.kill();
      await daemon.up();
      for (const argv of verbs) await daemon.fails(argv, refusal);
    }
    await using _again = await PausingFuse.mount(backing, source);
    await daemon.ok("admin", "check", "--repair");
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
    await daemon.ok("storage", "volume", "snapshot", "away", "v", "s0");
    await daemon.ok(...add("c1", "v", "pool=away", "source=v"));
    await daemon.ok("config", "device", "remove", "c1", "v");
    for (const name of ["v", "w"]) await daemon.ok("storage", "volume", "delete", "away", name);
    await daemon.ok("storage", "delete", "away");
    writeFileSync(file, "");
  });
});
