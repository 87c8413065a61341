/** Host paths as disks: mounts below them are included, and an attached disk can be detached whatever happened to its source. */
import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

/** Mount points below the source, outer ones first. */
const below = ["sub", "sub/deep", "with space"];

const clear = `umount -R -l "$1" 2>/dev/null
awk -v host="$2/" 'index($5, host) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r -n1 umount -l
rm -rf --one-file-system "$2"`;

Deno.test("disks of the host: mounts below them, and sources that are replaced", async (t) => {
  const image = await busyboxImage();
  await using daemon = await Daemon.start();
  const host = `${daemon.directory}.host`, tank = join(host, "tank");
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=plain");
  await daemon.ok("image", "import", image, "--alias", "bb");
  mkdirSync(tank, { recursive: true });
  const sh = (instance: string, script: string) => daemon.ok("exec", instance, "--", "sh", "-c", script);
  const add = (instance: string, device: string, ...keys: string[]) =>
    daemon.ok("config", "device", "add", instance, device, "disk", ...keys);
  const remove = (instance: string, device: string, ...flags: string[]) =>
    daemon.ok("config", "device", "remove", instance, device, ...flags);
  const mounts = async (instance: string) => {
    // A covered mount may be included or not: nothing can reach it.
    const script = "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(t|s|d|f)(/|$)' | grep -v /lost | sort -u; true";
    return (await sh(instance, script)).split("\n").filter(Boolean);
  };
  const seenAt = (target: string) => [target, ...below.map((path) => `${target}/${path.replace(" ", "\\040")}`)].sort();
  try {
    await succeed(["mount", "-t", "tmpfs", "tmpfs", tank]);
    for (const path of below) {
      mkdirSync(join(tank, path));
      await succeed(["mount", "-t", "tmpfs", "tmpfs", join(tank, path)]);
      writeFileSync(join(tank, path, "file"), `in ${path}\n`);
    }
    // A mount that is covered by another one.
    mkdirSync(join(tank, "covered"));
    await succeed(["mount", "-t", "tmpfs", "tmpfs", join(tank, "covered")]);
    mkdirSync(join(tank, "covered/lost"));
    await succeed(["mount", "-t", "tmpfs", "tmpfs", join(tank, "covered/lost")]);
    await succeed(["mount", "-t", "tmpfs", "tmpfs", join(tank, "covered")]);
    const covered = (target: string) => [...seenAt(target), `${target}/covered`].sort();

    await daemon.ok("init", "bb", "c1");
    await daemon.ok("init", "bb", "root", "-c", "security.privileged=true");
    for (const name of ["c1", "root"]) {
      await t.step(`${name}: submounts are there on start and restart, and can be removed while it runs`, async () => {
        await add(name, "tank", `source=${tank}`, "path=/t", "recursive=true");
        await add(name, "shifted", `source=${tank}`, "path=/s", "recursive=true", "shift=true", "readonly=true");
        await daemon.ok("start", name);
        for (const again of [() => daemon.ok("restart", "-f", name), () => Promise.resolve("")]) {
          assert.deepEqual(await mounts(name), [...covered("/s"), ...covered("/t")]);
          for (const path of below) {
            assert.equal(await sh(name, `cat "/t/${path}/file"`), `in ${path}`);
            assert.equal(await sh(name, `stat -c %u:%g "/s/${path}/file"`), "0:0");
            await assert.rejects(sh(name, `touch "/s/${path}/new"`), /Read-only/);
          }
          await again();
        }
        await remove(name, "tank");
        await remove(name, "shifted");
        assert.deepEqual(await mounts(name), []);
      });

      await t.step(`${name}: the same when it is added while it runs`, async () => {
        await add(name, "tank", `source=${tank}`, "path=/t", "recursive=true");
        await add(name, "shifted", `source=${tank}`, "path=/s", "recursive=true", "shift=true");
        assert.deepEqual(await mounts(name), [...covered("/s"), ...covered("/t")]);
        assert.equal(await sh(name, "stat -c %u /s/sub/deep/file"), "0");
        await daemon.terminate();
        await daemon.up();
        await remove(name, "tank");
        await remove(name, "shifted");
        assert.deepEqual(await mounts(name), []);
      });
    }

    await t.step("what is busy stays whole, and so does what the container has mounted there", async () => {
      await add("c1", "tank", `source=${tank}`, "path=/t", "recursive=true");
      for (const place of ["/t/sub", "/t"]) {
        const pid = await sh("c1", `cd ${place}; sleep 1000 >/dev/null 2>&1 & echo $!`);
        for (let count = 0; count < 2; count++) {
          await daemon.fails(
            ["config", "device", "remove", "c1", "tank"],
            new RegExp(`Cannot unmount "/t" in the instance: it is in use by sleep 1000 \\(pid ${pid}\\)`),
          );
          assert.deepEqual(await mounts("c1"), covered("/t"));
          assert.equal(await sh("c1", "cat /t/sub/deep/file"), "in sub/deep");
        }
        await sh("c1", `kill ${pid}; while kill -0 ${pid} 2>/dev/null; do :; done`);
      }
      await sh("root", "true");
      await add("root", "tank", `source=${tank}`, "path=/t", "recursive=true");
      await sh("root", "mkdir /t/own && mount -t tmpfs own /t/own && echo kept >/t/own/file");
      await daemon.fails(["config", "device", "remove", "root", "tank"], /in use by a mount at "\/t\/own"/);
      assert.equal(await sh("root", "cat /t/own/file"), "kept");
      assert.deepEqual(await mounts("root"), [...covered("/t"), "/t/own"].sort());
      await sh("root", "umount /t/own");
      for (const name of ["c1", "root"]) {
        await remove(name, "tank");
        assert.deepEqual(await mounts(name), []);
      }
    });

    await t.step("a place where it cannot be is named, with why", async () => {
      const file = join(host, "file");
      writeFileSync(file, "a file\n");
      for (
        const [source, path, why] of [
          [file, "/usr", "a file and a directory cannot be mounted on each other"],
          [host, "/etc/passwd", "something on the way is not a directory"],
          [file, "/proc/nothing", "nothing can be made there, as in /proc"],
        ]
      ) {
        await daemon.fails(
          ["config", "device", "add", "c1", "there", "disk", `source=${source}`, `path=${path}`],
          new RegExp(`Cannot mount at "${path}" in the instance: ${why}`),
        );
      }
    });

    await t.step("a filesystem that takes no id map is named", async () => {
      mkdirSync(join(tank, "kernel"));
      await succeed(["mount", "-t", "debugfs", "debugfs", join(tank, "kernel")]);
      const device = ["s", "disk", `source=${tank}`, "path=/s", "recursive=true", "shift=true"];
      const refusal = new RegExp(`"${tank}/kernel" \\(debugfs\\)`);
      await daemon.fails(["config", "device", "add", "c1", ...device], refusal);
      assert.deepEqual(await mounts("c1"), []);
      await daemon.ok("stop", "-f", "c1");
      await daemon.ok("config", "device", "add", "c1", ...device);
      await daemon.fails(["start", "c1"], refusal);
      await daemon.ok("config", "device", "unset", "c1", "s", "shift");
      await daemon.ok("start", "c1");
      assert.ok((await mounts("c1")).includes("/s/kernel"));
      await remove("c1", "s");
      await succeed(["umount", join(tank, "kernel")]);
    });

    const replacements: readonly [string, (source: string) => Promise<unknown> | void][] = [
      ["edited by rename", (source) => {
        rmSync(source, { recursive: true });
        mkdirSync(`${source}.new`);
        renameSync(`${source}.new`, source);
      }],
      ["moved away", (source) => renameSync(source, `${source}.away`)],
      ["unmounted", (source) => succeed(["umount", "-l", source])],
      ["covered", (source) => succeed(["mount", "-t", "tmpfs", "tmpfs", source])],
      ["switched to another directory by its symbolic link", (source) => {
        rmSync(source);
        symlinkSync(join(host, "other"), source);
      }],
      ["a file that an editor has replaced", (source) => {
        writeFileSync(`${source}.new`, "new\n");
        renameSync(`${source}.new`, source);
      }],
    ];
    for (const name of ["one", "other"]) mkdirSync(join(host, name));
    for (const [index, [how, replace]] of replacements.entries()) {
      await t.step(`the source was replaced (${how}): what was attached is detached`, async () => {
        for (const when of ["while it ran", "before it was started"]) {
          const source = join(host, `source-${index}-${when.length}`);
          if (how.includes("symbolic")) symlinkSync(join(host, "one"), source);
          else if (how.includes("file")) writeFileSync(source, "old\n");
          else mkdirSync(source);
          if (how === "unmounted") await succeed(["mount", "-t", "tmpfs", "tmpfs", source]);
          if (when !== "while it ran") await daemon.ok("stop", "-f", "c1");
          const target = how.includes("file") ? "/f" : "/d";
          await add("c1", "d", `source=${source}`, `path=${target}`);
          if (when !== "while it ran") await daemon.ok("start", "c1");
          assert.deepEqual(await mounts("c1"), [target]);
          await replace(source);
          await daemon.kill();
          await daemon.up();
          await remove("c1", "d");
          assert.deepEqual(await mounts("c1"), [], when);
          if (how === "covered") await succeed(["umount", source]);
        }
      });
    }

    await t.step("of two disks of one source the right one is detached, wherever the container moved it", async () => {
      await add("c1", "d", `source=${join(host, "one")}`, "path=/d");
      await add("c1", "t", `source=${join(host, "one")}`, "path=/t");
      await sh("c1", "mkdir -p /s && mount --make-rprivate / && mount --move /d /s");
      await remove("c1", "d");
      assert.deepEqual(await mounts("c1"), ["/t"]);
      await remove("c1", "t");
      assert.deepEqual(await mounts("c1"), []);
    });
  } finally {
    await daemon.lido(["delete", "-f", "c1", "root"]);
    await succeed(["sh", "-c", clear, "sh", tank, host]);
  }
});
