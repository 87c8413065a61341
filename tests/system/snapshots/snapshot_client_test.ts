/** The real `lxc` with snapshots of a volume: names by pattern, show, edit, rename, expiry. */
import assert from "node:assert/strict";
import type { StorageVolumeSnapshot } from "../../../api/types.ts";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";

Deno.test("lxc on snapshots of a volume", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("storage", "volume", "create", "plain", "v");
  const lxc = (...words: string[]) => daemon.lxc("storage", "volume", ...words);
  const snapshots = () =>
    daemon.query("/1.0/storage-pools/plain/volumes/custom/v/snapshots?recursion=1") as Promise<StorageVolumeSnapshot[]>;

  await t.step("named by the pattern, which is checked when it is set", async () => {
    await daemon.fails(
      ["storage", "volume", "set", "plain", "v", "snapshots.pattern={{ name }}"],
      /Invalid value for volume "v" option "snapshots\.pattern": .*{{ creation_date }} and/,
    );
    await lxc("set", "plain", "v", "snapshots.pattern", "at-{{ creation_date|date:'2006-01-02' }}");
    await lxc("snapshot", "plain", "v");
    await lxc("snapshot", "plain", "v");
    const [first, second] = await snapshots();
    assert.match(first!.name, /^at-\d{4}-\d\d-\d\d$/);
    assert.match(second!.name, /^at-\d{4}-\d\d-\d\d(-0)?$/);
    assert.notEqual(first!.name, second!.name);
    await lxc("delete", "plain", `v/${second!.name}`);
    await lxc("rename", "plain", `v/${first!.name}`, "v/s0");
    assert.deepEqual((await snapshots()).map(({ name }) => name), ["s0"]);
  });

  await t.step("shown and edited; the expiry is kept", async () => {
    const text = await lxc("show", "plain", "v/s0");
    assert.match(text, /name: s0/);
    const changed = text.replace(/description: .*/, "description: of use").replace(
      /expires_at: .*/,
      "expires_at: 2099-01-02T03:04:05Z",
    );
    await succeed(["bash", "-c", 'printf "%s\\n" "$1" | lxc storage volume edit plain v/s0', "-", changed], {
      env: { ...daemon.environment, HOME: `${daemon.directory}.lxc`, LXD_CONF: `${daemon.directory}.lxc` },
    });
    const [one] = await snapshots();
    assert.equal(one!.description, "of use");
    assert.match(String(one!.expires_at), /^2099-01-02T03:04:05/);
  });
});
