/** Volumes of every type and their snapshots: listed, filtered, shown and changed, by both clients. */
import assert from "node:assert/strict";
import type { StorageVolume } from "../../../api/types.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

Deno.test("volumes listed, shown and changed by both clients", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("init", "bb", "c1");
  await daemon.ok("snapshot", "c1", "snap0");
  await daemon.ok("storage", "volume", "create", "fast", "v", "user.a=1", "snapshots.expiry=1d");
  await daemon.ok("storage", "volume", "create", "fast", "w", "size=50MiB", "user.b=x y");
  await daemon.lxc("storage", "volume", "set", "fast", "v", "user.k=v");
  await daemon.lxc("storage", "volume", "snapshot", "fast", "v");
  await daemon.lxc("storage", "volume", "snapshot", "fast", "v", "mysnap");
  const [image] = await daemon.query("/1.0/images") as [string];
  const fingerprint = image.split("/").at(-1)!;

  await t.step("the list has snapshots behind their volumes, as LXD's", async () => {
    const expected = [
      "container,c1,,filesystem,1",
      "container (snapshot),c1/snap0,,filesystem,1",
      "custom,v,,filesystem,0",
      "custom (snapshot),v/mysnap,,filesystem,0",
      "custom (snapshot),v/snap0,,filesystem,0",
      "custom,w,,filesystem,0",
      `image,${fingerprint},,filesystem,1`,
    ].join("\n");
    assert.equal(await daemon.lxc("storage", "volume", "list", "fast", "-f", "csv"), expected);
    assert.equal(await daemon.ok("storage", "volume", "list", "fast", "-f", "csv"), expected);
    assert.deepEqual(await daemon.query("/1.0/storage-pools/fast/volumes/custom"), [
      "/1.0/storage-pools/fast/volumes/custom/v",
      "/1.0/storage-pools/fast/volumes/custom/v/snapshots/mysnap",
      "/1.0/storage-pools/fast/volumes/custom/v/snapshots/snap0",
      "/1.0/storage-pools/fast/volumes/custom/w",
    ]);
    assert.match(await daemon.lxc("storage", "volume", "list", "fast", "--all-projects", "-c", "en", "-f", "csv"), /v/);
  });

  await t.step("filters, for volumes, instances and images", async () => {
    const names = async (filter: string) => {
      const path = `/1.0/storage-pools/fast/volumes?recursion=1&filter=${encodeURIComponent(filter)}`;
      return (await daemon.query(path) as StorageVolume[]).map(({ name }) => name).join(" ");
    };
    assert.equal(await names("type eq custom and config.user.a eq 1"), "v v/mysnap v/snap0");
    assert.equal(await names('config.user.b eq "x y" or name eq c1'), "c1 w");
    assert.equal(await names("not type eq custom and name ne c1.*"), fingerprint);
    await daemon.fails(
      ["query", "/1.0/storage-pools/fast/volumes?filter=name"],
      /Invalid filter: clause has no operator/,
    );
    assert.equal(await daemon.lxc("storage", "volume", "list", "fast", "name=w", "-f", "csv", "-c", "n"), "w");
    const instances = (filter: string) => daemon.query(`/1.0/instances?filter=${encodeURIComponent(filter)}`);
    assert.deepEqual(await instances("status eq stopped and expanded_devices.root.pool eq fast"), [
      "/1.0/instances/c1",
    ]);
    assert.deepEqual(await instances("name eq c2"), []);
    assert.deepEqual(await daemon.query("/1.0/images?filter=properties.os%20eq%20busybox"), [image]);
    assert.deepEqual(await daemon.query("/1.0/images?filter=public%20eq%20true"), []);
  });

  await t.step("every type and snapshots are shown; the clients agree", async () => {
    for (const name of ["v", "w", "container/c1", `image/${fingerprint}`, "v/snap0", "container/c1/snap0"]) {
      const shown = await daemon.lxc("storage", "volume", "show", "fast", name);
      assert.equal(await daemon.ok("storage", "volume", "show", "fast", name), shown, name);
      assert.match(shown, /^content_type: filesystem$/m);
    }
    assert.match(await daemon.lxc("storage", "volume", "info", "fast", "v"), /Usage: .*iB\n\nSnapshots:\n[^]*mysnap/);
    assert.match(await daemon.ok("storage", "volume", "info", "fast", "v"), /Usage: .*iB.*\n\nSnapshots:\n[^]*mysnap/);
    assert.match(await daemon.lxc("storage", "volume", "info", "fast", "container/c1"), /Type: container/);
    // Only by our client: the real one does not know the type image there.
    assert.match(await daemon.ok("storage", "volume", "info", "fast", `image/${fingerprint}`), /Type: image/);
  });

  await t.step("set, get, unset, edit, rename and delete, of volumes and snapshots", async () => {
    const lxc = (...words: string[]) => daemon.lxc("storage", "volume", ...words);
    await lxc("set", "fast", "v", "user.k2=v2");
    assert.equal(await lxc("get", "fast", "v", "user.k2"), "v2");
    await lxc("unset", "fast", "v", "user.k2");
    await daemon.fails(
      ["storage", "volume", "set", "fast", "v", "block.filesystem=ext4"],
      /Invalid option for volume "v" option "block.filesystem"/,
    );
    await daemon.fails(
      ["storage", "volume", "set", "fast", "v", "zfs.blocksize=4096"],
      /Invalid option for volume "v"/,
    );
    await lxc("rename", "fast", "v/snap0", "v/snapren");
    await lxc("delete", "fast", "v/snapren");
    await lxc("rename", "fast", "w", "w2");
    await lxc("delete", "fast", "w2");
    await daemon.fails(
      ["storage", "volume", "delete", "fast", "container/c1"],
      /Storage volumes of type "container" cannot/,
    );
    assert.equal(await lxc("list", "fast", "-f", "csv", "-c", "n"), `c1\nc1/snap0\nv\nv/mysnap\n${fingerprint}`);
  });
});
