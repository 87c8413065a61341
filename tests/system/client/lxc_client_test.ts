/** The real `lxc` client 5.0.2 against lido, on real pools and containers. */
import assert from "node:assert/strict";
import { command } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

Deno.test("lxc drives lido: pools, images, containers, volumes, exec", async (t) => {
  const image = await busyboxImage();
  await using daemon = await Daemon.start();
  const lxc = (...argv: string[]) => daemon.lxc(...argv);
  const exec = (...argv: string[]) =>
    command(["lxc", "exec", ...argv], { env: { ...daemon.environment, HOME: daemon.directory } });

  await t.step("storage create, list, show, info", async () => {
    assert.match(await lxc("storage", "create", "fast", "btrfs", "size=1GiB"), /Storage pool fast created/);
    assert.match(await lxc("storage", "create", "plain", "dir"), /Storage pool plain created/);
    assert.match(await lxc("storage", "list", "-f", "csv"), /^fast,btrfs,.*\nplain,dir,/);
    assert.match(await lxc("storage", "show", "fast"), /driver: btrfs[\s\S]*status: Created/);
    assert.match(await lxc("storage", "info", "fast"), /total space: 1\.0\dGiB|total space: 1\.00GiB/);
  });

  await t.step("image import and list", async () => {
    assert.match(await lxc("image", "import", image, "--alias", "bb"), /Image imported with fingerprint: [0-9a-f]{64}/);
    assert.match(await lxc("image", "list", "-f", "csv"), /^bb,[0-9a-f]{12},no,Busybox/);
  });

  await t.step("launch on the default pool and on -s", async () => {
    await lxc("profile", "device", "add", "default", "root", "disk", "path=/", "pool=fast");
    await lxc("launch", "bb", "c1");
    await lxc("launch", "bb", "c2", "-s", "plain");
    assert.equal(await lxc("list", "-f", "csv", "-c", "nsb"), "c1,RUNNING,fast\nc2,RUNNING,plain");
    assert.match(await lxc("info", "c1"), /Status: RUNNING/);
    await lxc("init", "bb", "c3");
    assert.match(await lxc("info", "c3", "--show-log"), /Status: STOPPED[^]*Log:\s*$/, "no log yet is an empty one");
    await lxc("delete", "c3");
  });

  await t.step("exec: exit codes, signals, streams", async () => {
    assert.equal((await exec("c1", "--", "true")).code, 0);
    assert.equal((await exec("c1", "--", "sh", "-c", "exit 42")).code, 42);
    assert.equal((await exec("c1", "--", "sh", "-c", "kill -9 $$")).code, 137);
    assert.equal((await exec("c1", "--", "nosuch")).code, 127);
    const both = await exec("c1", "--env", "A=b", "--", "sh", "-c", "echo out $A; echo err >&2; id -u");
    assert.deepEqual([both.out, both.err, both.code], ["out b\n0\n", "err\n", 0]);
  });

  await t.step("a volume is created and attached to both; what one writes the other reads", async () => {
    await lxc("storage", "volume", "create", "fast", "shared");
    await lxc("storage", "volume", "attach", "fast", "shared", "c1", "/mnt/shared");
    await lxc("storage", "volume", "attach", "fast", "shared", "c2", "data", "/mnt/shared");
    assert.equal(
      (await exec("c1", "--", "sh", "-c", "echo hello > /mnt/shared/f; stat -c %u /mnt/shared/f")).out,
      "0\n",
    );
    assert.equal((await exec("c2", "--", "cat", "/mnt/shared/f")).out, "hello\n");
    assert.match(await lxc("storage", "volume", "list", "fast", "-f", "csv"), /^custom,shared,.*,filesystem,2/m);
    await lxc("storage", "volume", "detach", "fast", "shared", "c2");
    assert.equal((await exec("c2", "--", "cat", "/mnt/shared/f")).code, 1);
  });

  await t.step("stop, start, delete", async () => {
    await lxc("stop", "c2");
    assert.equal(await lxc("list", "c2", "-f", "csv", "-c", "s"), "STOPPED");
    const refused = await exec("c2", "--", "true");
    assert.deepEqual([refused.code, refused.err], [1, "Error: Instance is not running\n"]);
    await lxc("start", "c2");
    await lxc("stop", "-f", "c2");
    await lxc("delete", "c2");
    await lxc("delete", "-f", "c1");
    assert.equal(await lxc("list", "-f", "csv"), "");
    await lxc("storage", "volume", "delete", "fast", "shared");
  });
});
