import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHost } from "../../drivers/host/real.ts";
import { SocketDirectory } from "./socket_directory.ts";

const { mounts } = createHost();

/** @param test `root` is behind a symbolic link, as a daemon's directory may be. */
async function withRoot(test: (root: string, isMounted: () => Promise<boolean>) => Promise<void>): Promise<void> {
  const above = mkdtempSync(join(tmpdir(), "lido-sockets-"));
  const real = join(above, "real");
  mkdirSync(real);
  symlinkSync(real, join(above, "link"));
  try {
    await test(join(above, "link", "devlxd"), async () => await mounts.at(join(real, "devlxd")) !== undefined);
  } finally {
    await mounts.unmount(join(real, "devlxd"), { lazy: true });
    rmSync(above, { recursive: true });
  }
}

Deno.test("SocketDirectory: a filesystem of its own while a container has a directory, for the next daemon too", () =>
  withRoot(async (root, isMounted) => {
    const first = new SocketDirectory(root, mounts);
    assert.ok(!await isMounted());
    await Promise.all(["c1", "c2"].map((name) => first.make(name)));
    assert.ok(await isMounted());
    assert.equal(statSync(root).mode & 0o777, 0o700);
    assert.equal(statSync(join(root, "c1")).mode & 0o777, 0o755);
    assert.throws(() => writeFileSync(join(root, "c1", "file"), new Uint8Array(200 << 10)), { code: "ENOSPC" });
    await first.delete("c2");
    await first.close();
    const next = new SocketDirectory(root, mounts);
    assert.deepEqual(next.names(), ["c1"]);
    const byDescriptor = await next.make("c1");
    writeFileSync(join(byDescriptor, "c1", "sock"), "");
    assert.ok(existsSync(join(root, "c1", "sock")));
    await next.delete("c1");
    assert.ok(!await isMounted());
    await next.make("c3");
    assert.ok(await isMounted());
    await next.delete("c3");
    await next.close();
    assert.ok(!await isMounted());
  }));

Deno.test("SocketDirectory: nothing is mounted over directories that containers look at, and what nobody has is unmounted", () =>
  withRoot(async (root, isMounted) => {
    mkdirSync(join(root, "c1"), { recursive: true });
    const directory = new SocketDirectory(root, mounts);
    await directory.make("c2");
    assert.ok(!await isMounted());
    assert.deepEqual(directory.names().sort(), ["c1", "c2"]);
    await directory.delete("c1");
    await directory.delete("c2");
    // The first daemon ended in between.
    await mounts.mount("lido", root, "tmpfs");
    assert.ok(await isMounted());
    await new SocketDirectory(root, mounts).close();
    assert.ok(!await isMounted());
  }));
