/** A profile edit that some instances cannot apply: it is saved, the others apply it, and the failed ones are named. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Profile } from "../../../api/types.ts";
import { command } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

const saved = "Error: The following instances failed to update (profile change still saved):";
/** Skips the text that lxc prints on its first run. */
const lines = (err: string) =>
  err.slice(err.indexOf("Error: ")).trimEnd().split(/\n - |: (?=Project: )|; (?=Project: )/);
const failed = (name: string, device: string) =>
  new RegExp(
    `^Project: default, Instance: ${name}: Failed to start device "${device}": Cannot mount at "/d/${device}" in the instance: a symbolic link is there`,
  );

Deno.test("a profile edit is saved although instances cannot follow it", async (t) => {
  const source = mkdtempSync(join(tmpdir(), "lido-follow-"));
  using _source = { [Symbol.dispose]: () => rmSync(source, { recursive: true }) };
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("profile", "create", "p");
  for (const name of ["c1", "c2", "c3"]) await daemon.ok("launch", "bb", name, "-p", "default", "-p", "p");
  await daemon.ok("init", "bb", "off", "-p", "default", "-p", "p");
  await daemon.ok("storage", "volume", "create", "plain", "v", "security.shifted=true");
  const sh = (instance: string, script: string) => daemon.ok("exec", instance, "--", "sh", "-c", script);
  const mounts = (instance: string) => sh(instance, "cut -d' ' -f5 /proc/self/mountinfo | grep ^/d/ | sort; true");
  const devices = async (name: string) =>
    Object.keys((await daemon.query(`/1.0/profiles/${name}`) as Profile).devices).sort();
  await sh("c1", "mkdir /d");
  await sh("c2", "mkdir /d; ln -s /etc /d/v; ln -s /etc /d/w");
  await daemon.ok("pause", "c3");

  await t.step("lido says who could not and why; the others follow", async () => {
    const argv = ["profile", "device", "add", "p", "v", "disk", "pool=plain", "source=v", "path=/d/v"];
    const { code, out, err } = await daemon.lido(argv);
    assert.deepEqual([code, out], [1, ""]);
    const [first, c2, c3, ...more] = lines(err);
    assert.equal(`${first}:`, saved);
    assert.match(c2!, failed("c2", "v"));
    assert.equal(c3, 'Project: default, Instance: c3: Instance is frozen: "c3"');
    assert.deepEqual(more, []);
    assert.deepEqual(await devices("p"), ["v"]);
    assert.deepEqual(await Promise.all(["c1", "c2"].map(mounts)), ["/d/v", ""]);
  });

  await t.step("so does lxc", async () => {
    const home = `${daemon.directory}.lxc`;
    const argv = ["lxc", "profile", "device", "add", "p", "w", "disk", `source=${source}`, "path=/d/w"];
    const { code, err } = await command(argv, { env: { ...daemon.environment, HOME: home, LXD_CONF: home } });
    assert.equal(code, 1);
    const [first, c2] = lines(err);
    assert.equal(first, saved);
    assert.match(c2!, failed("c2", "v"));
    assert.deepEqual(await devices("p"), ["v", "w"]);
    assert.deepEqual(await Promise.all(["c1", "c2"].map(mounts)), ["/d/v\n/d/w", ""]);
  });

  await t.step("the daemon killed, nothing goes back", async () => {
    await daemon.kill();
    await daemon.up();
    assert.deepEqual(await devices("p"), ["v", "w"]);
    assert.deepEqual(await Promise.all(["c1", "c2"].map(mounts)), ["/d/v\n/d/w", ""]);
    assert.match(await daemon.ok("admin", "check"), /Nothing is wrong/);
  });

  await t.step("they follow with the next change, or start, when they can", async () => {
    await sh("c2", "rm /d/v /d/w");
    await daemon.ok("start", "c3");
    await daemon.ok("profile", "set", "p", "user.note=1");
    for (const name of ["c2", "c3"]) assert.equal(await mounts(name), "/d/v\n/d/w");
    await daemon.ok("start", "off");
    assert.equal(await mounts("off"), "/d/v\n/d/w");
    await daemon.ok("stop", "-f", "off");
  });

  await t.step("what is in use stays with who uses it", async () => {
    await daemon.ok("exec", "--detach", "c1", "--", "sh", "-c", "cd /d/v && touch /d/ready && sleep 1000");
    await sh("c1", "while ! [ -e /d/ready ]; do usleep 10000; done");
    const { code, err } = await daemon.lido(["profile", "device", "remove", "p", "v"]);
    assert.equal(code, 1);
    assert.match(err, /: Project: default, Instance: c1: Failed to stop device "v": .* in use by sleep 1000/);
    assert.deepEqual(await devices("p"), ["w"]);
    assert.deepEqual(await Promise.all(["c1", "c2"].map(mounts)), ["/d/v\n/d/w", "/d/w"]);
    await daemon.ok("restart", "-f", "c1");
    assert.equal(await mounts("c1"), "/d/w");
    await daemon.ok("profile", "device", "remove", "p", "w");
    assert.equal(await mounts("c1"), "");
  });

  await t.step("a root disk that is fuller than its new size keeps the one that it has", async () => {
    await sh("c1", "head -c 20000000 /dev/urandom >/data; sync");
    const { code, err } = await daemon.lido(["profile", "device", "set", "default", "root", "size=5MiB"]);
    assert.equal(code, 1);
    assert.match(err, /: Project: default, Instance: c1: .*5\.00MiB/);
    assert.equal((await daemon.query("/1.0/profiles/default") as Profile).devices.root!.size, "5MiB");
    await sh("c1", "cp /data /more; sync");
    await daemon.ok("profile", "device", "unset", "default", "root", "size");
  });
  await command(["rm", "-rf", `${daemon.directory}.lxc`]);
});
