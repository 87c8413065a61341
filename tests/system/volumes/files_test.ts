/** File access to volumes from outside, while no container uses them, and while a container attacks. */
import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

Deno.test("files of volumes", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  for (const pool of ["fast", "plain"]) await daemon.ok("storage", "volume", "create", pool, "v");
  const file = (...words: string[]) => daemon.ok("storage", "volume", "file", ...words);
  const refused = (words: string[], pattern: RegExp) => daemon.fails(["storage", "volume", "file", ...words], pattern);
  const work = join(daemon.directory, "work");
  mkdirSync(work);
  const root = (pool: string) => join(daemon.directory, "storage-pools", pool, "custom/default_v");

  for (const pool of ["fast", "plain"]) {
    await t.step(`push, list, pull and delete (${pool})`, async () => {
      const random = crypto.getRandomValues(new Uint8Array(65536));
      writeFileSync(join(work, "f"), Buffer.concat(Array(50).fill(random)));
      chownSync(join(work, "f"), 12, 34);
      chmodSync(join(work, "f"), 0o4751);
      await file("push", join(work, "f"), pool, "v/f");
      const info = statSync(join(root(pool), "f"));
      assert.deepEqual([info.uid, info.gid, info.mode & 0o7777], [12, 34, 0o4751]);
      await file("pull", pool, "v/f", join(work, `back-${pool}`));
      assert.ok(readFileSync(join(work, `back-${pool}`)).equals(readFileSync(join(work, "f"))));
      assert.equal(statSync(join(work, `back-${pool}`)).mode & 0o7777, 0o751, "setuid stays behind");
      await refused(["push", join(work, "f"), pool, "v/a/b/f"], /Not Found/);
      await file("push", "-p", join(work, "f"), pool, "v/a/b/", "--uid", "7", "--mode", "600");
      assert.match(await file("list", pool, "v/a/b", "-f", "csv"), /^-rw-------,7,34,3276800,[^,]+,f$/);
      const stdin = await daemon.lido(["storage", "volume", "file", "push", "-", pool, "v/typed"], {
        input: "hello\n",
      });
      assert.equal(stdin.code, 0, stdin.err);
      assert.equal(await file("pull", pool, "v/typed", "-"), "hello");
      await refused(["delete", pool, "v/a"], /Cannot use "\/a": the directory is not empty/);
      await refused(["delete", pool, "v"], /Cannot delete the root of volume "v"/);
      await refused(["delete", pool, "v/nosuch"], /Not Found/);
      await refused(["pull", pool, "v/nosuch", work], /Cannot pull "\/nosuch": there is no such file/);
      await refused(["pull", pool, "v/a", work], /it is a directory; use --recursive/);
      await refused(["push", work, pool, "v/x"], /it is a directory; use --recursive/);
      await refused(["list", pool, "nosuch"], /Storage pool volume not found/);
      for (const name of ["a/b/f", "a/b", "a", "f", "typed"]) await file("delete", pool, `v/${name}`);
      assert.deepEqual(readdirSync(root(pool)), []);
    });
  }

  await t.step("whole trees go there and back, links as links", async () => {
    const tree = join(work, "tree");
    mkdirSync(join(tree, "deep/er"), { recursive: true });
    writeFileSync(join(tree, "deep/er/ä b"), "content");
    writeFileSync(join(tree, "empty"), "");
    symlinkSync("/etc/shadow", join(tree, "deep/link"));
    chmodSync(join(tree, "deep"), 0o555);
    await succeed(["mkfifo", join(tree, "fifo")]);
    const { err } = await daemon.lido(["storage", "volume", "file", "push", "-r", tree, "fast", "v/in/here/", "-p"]);
    assert.match(err, /^Passed over ".*fifo": it is a FIFO/);
    // Push again over the existing files.
    assert.equal((await daemon.lido(["storage", "volume", "file", "push", "-r", tree, "fast", "v/in/here/"])).code, 0);
    await file("pull", "-r", "fast", "v/in/here/tree", join(work, "out"), "-p");
    await succeed(["rm", join(tree, "fifo")]);
    assert.equal(await succeed(["diff", "-r", "--no-dereference", tree, join(work, "out")]), "");
    assert.equal(readlinkSync(join(work, "out/deep/link")), "/etc/shadow");
    assert.equal(statSync(join(work, "out/deep")).mode & 0o777, 0o555);
  });

  await t.step("the API as LXD's: headers, appending, links, what is refused", async () => {
    const url = (path: string, pool = "plain") =>
      `/1.0/storage-pools/${pool}/volumes/custom/v/files?path=${encodeURIComponent(path)}`;
    const ask = (method: string, path: string, headers: Record<string, string> = {}, body?: string) =>
      send(join(daemon.directory, "unix.socket"), method, path, headers, body);
    const make = async (path: string, headers: Record<string, string>, body = "") => {
      const { status, text } = await ask("POST", url(path), headers, body);
      return [status, JSON.parse(text).error];
    };
    assert.deepEqual(await make("n", { "x-lxd-uid": "5", "x-lxd-mode": "0600" }, "one"), [200, ""]);
    assert.deepEqual(await make("n", { "x-lxd-uid": "7", "x-lxd-write": "append" }, "two"), [200, ""]);
    const got = await ask("GET", url("/n"));
    assert.deepEqual(
      [got.text, got.headers["content-length"], got.headers["x-lxd-type"], got.headers["x-lxd-uid"]],
      ["onetwo", "6", "file", "5"],
    );
    assert.deepEqual([got.headers["x-lxd-gid"], got.headers["x-lxd-mode"]], ["0", "0600"]);
    assert.match(String(got.headers["x-lxd-modified"]), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC$/);
    assert.deepEqual(await make("n", { "x-lxd-mode": "0640", "x-lxd-modify-perm": "mode" }, "3"), [200, ""]);
    const head = await ask("HEAD", url("/n"));
    assert.deepEqual([head.status, head.text, head.headers["x-lxd-mode"]], [200, "", "0640"]);
    assert.deepEqual(await make("d/", { "x-lxd-type": "directory" }), [200, ""]);
    assert.deepEqual(await make("d/l", { "x-lxd-type": "symlink" }, "../n"), [200, ""]);
    assert.deepEqual(await make("d/l", { "x-lxd-type": "symlink" }, "x"), [409, '"d/l" already exists']);
    const link = await ask("GET", url("d/l"));
    assert.deepEqual([link.text, link.headers["x-lxd-type"]], ["../n", "symlink"]);
    assert.deepEqual(JSON.parse((await ask("GET", url("/"))).text).metadata, ["d", "n"]);
    assert.deepEqual(await make("n", { "x-lxd-type": "odd" }), [400, "Bad file type: odd"]);
    assert.deepEqual(await make("n", { "x-lxd-write": "odd" }), [400, "Bad file write mode: odd"]);
    assert.match(String((await make("n", { "x-lxd-uid": "-5" }))[1]), /Invalid uid "-5"/);
    assert.match(String((await make("n", { "x-lxd-mode": "99999" }))[1]), /Invalid mode "99999"/);
    assert.match(String((await make("n/x", {}))[1]), /a part of the path is no directory/);
    assert.match(String((await make("d", {}, "x"))[1]), /Cannot use "d": it is a directory/);
    assert.match(String((await make("x".repeat(300), {}))[1]), /too long/);
    const none = await ask("GET", "/1.0/storage-pools/plain/volumes/custom/v/files");
    assert.equal(JSON.parse(none.text).error, "Missing path argument");
    const image = await ask("GET", "/1.0/storage-pools/plain/volumes/container/c1/files?path=/");
    assert.equal(image.status, 400);
  });

  await t.step("no path and no link leads out of the volume", async () => {
    const secret = join(work, "secret");
    writeFileSync(secret, "secret");
    symlinkSync(secret, join(root("plain"), "absolute"));
    symlinkSync("/..", join(root("plain"), "up"));
    symlinkSync(work, join(root("plain"), "out"));
    assert.equal(await file("pull", "plain", "v/absolute", join(work, "as-link")), "");
    assert.equal(readlinkSync(join(work, "as-link")), secret);
    await refused(["pull", "plain", "v/out/secret", "-"], /no such file|Not Found/);
    await refused(["push", secret, "plain", "v/out/planted"], /Not Found/);
    await refused(["push", secret, "plain", "v/absolute"], /it is a symbolic link that leads to nothing/);
    await refused(["delete", "plain", "v/out/secret"], /Not Found/);
    await file("push", secret, "plain", "v/../../../../up/planted");
    assert.ok(existsSync(join(root("plain"), "planted")), "above the root is the root");
    assert.equal(existsSync(join(work, "planted")), false);
    assert.equal(readFileSync(secret, "utf8"), "secret");
    await succeed(["mkfifo", join(root("plain"), "fifo")]);
    await refused(["pull", "plain", "v/fifo", "-"], /FIFO, socket or device/);
    await refused(["push", secret, "plain", "v/fifo"], /FIFO, socket or device/);
  });

  await t.step("a volume that a running container has: its owners, its quota, its tricks", async () => {
    await daemon.ok("launch", "bb", "c1");
    await daemon.ok("storage", "volume", "create", "fast", "shared", "size=20MiB");
    await daemon.ok("storage", "volume", "attach", "fast", "shared", "c1", "/mnt");
    await daemon.ok("exec", "c1", "--", "sh", "-c", "echo from inside > /mnt/f; chown 1000:1001 /mnt/f");
    const onDisk = join(daemon.directory, "storage-pools/fast/custom/default_shared");
    assert.ok(statSync(join(onDisk, "f")).uid > 65536, "the volume's owners are mapped");
    assert.match(await file("list", "fast", "shared", "-f", "csv"), /^-rw-r--r--,1000,1001,12,/);
    writeFileSync(join(work, "g"), "from outside\n");
    await file("push", join(work, "g"), "fast", "shared/g", "--uid", "33", "--gid", "0", "--mode", "640");
    assert.equal(
      await daemon.ok("exec", "c1", "--", "sh", "-c", "cat /mnt/g; stat -c '%u %g %a' /mnt/g"),
      "from outside\n33 0 640",
    );
    await refused(
      ["push", join(work, "g"), "fast", "shared/h", "--uid", "4000000000"],
      /Invalid uid 4000000000: the id/,
    );
    // Over the limit: no part of the file is left.
    writeFileSync(join(work, "big"), "");
    truncateSync(join(work, "big"), 40 * 1024 ** 2);
    await refused(["push", join(work, "big"), "fast", "shared/big"], /Cannot use "\/big": no space is left in volume/);
    assert.equal(existsSync(join(onDisk, "big")), false);

    const swap = "cd /mnt; mkdir -p real; while true; do rm -rf x; ln -s /etc x; rm x; mkdir x; done";
    const swapping = daemon.lido(["exec", "c1", "-T", "--", "timeout", "5", "sh", "-c", swap]);
    const before = readdirSync("/etc").sort();
    const socket = join(daemon.directory, "unix.socket");
    const files = (path: string) => `/1.0/storage-pools/fast/volumes/custom/shared/files?path=${path}`;
    for (let round = 0; round < 200; round++) {
      await send(socket, "POST", files("x/lido-planted"), {}, "planted");
      await send(socket, "DELETE", files("x/passwd"), {});
      const { status } = await send(socket, "GET", files("x/passwd"), {});
      assert.ok(status === 404 || status === 400, `a host's file was read: ${status}`);
    }
    await daemon.lido(["storage", "volume", "file", "pull", "-r", "fast", "shared/x", join(work, "x")]);
    const there = join(work, "x");
    if (existsSync(there) && lstatSync(there).isDirectory()) {
      assert.deepEqual(readdirSync(there).filter((name) => name !== "lido-planted"), []);
    }
    await swapping;
    assert.deepEqual(readdirSync("/etc").sort(), before);
  });

  await t.step(
    "an upload that is cut off leaves nothing; a restore waits for one that goes on",
    async () => {
      await daemon.ok("storage", "volume", "snapshot", "plain", "v", "s0");
      const head = (length: number) =>
        `POST /1.0/storage-pools/plain/volumes/custom/v/files?path=cut HTTP/1.1\r\nHost: lido\r\n` +
        `Content-Type: application/octet-stream\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n`;
      /** Whether the daemon writes the upload: its unnamed temporary file is among the daemon's descriptors. */
      const isWriting = async () => {
        const fds = `/proc/${daemon.pid}/fd`;
        const links = readdirSync(fds).map((fd) => {
          try {
            return readlinkSync(join(fds, fd));
          } catch {
            return "";
          }
        });
        await daemon.query("/1.0");
        return links.some((link) => /default_v\/#\d+ \(deleted\)$/.test(link));
      };
      const upload = async (length: number, part: string) => {
        const socket = connect(join(daemon.directory, "unix.socket"));
        socket.write(head(length) + part);
        while (!await isWriting());
        return socket;
      };
      const cut = await upload(1000, "half of it");
      cut.destroy();
      while (await isWriting());
      assert.equal(existsSync(join(root("plain"), "cut")), false);
      const slow = await upload(10, "x".repeat(5));
      // The restore waits for the upload, which succeeds; then the volume has the snapshot's content.
      const restoring = daemon.ok("storage", "volume", "restore", "plain", "v", "s0");
      slow.write("x".repeat(5));
      assert.match(await text(slow), /^HTTP\/1.1 200 OK/);
      await restoring;
      assert.equal(existsSync(join(root("plain"), "cut")), false);
    },
  );
});

function send(
  socketPath: string,
  method: string,
  path: string,
  headers: Record<string, string>,
  body?: string,
): Promise<{ status: number; text: string; headers: Record<string, unknown> }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path, headers }, (reply) => {
      const chunks: Uint8Array[] = [];
      reply.on("data", (chunk) => chunks.push(chunk));
      reply.on("end", () =>
        resolve({
          status: reply.statusCode ?? 0,
          text: Buffer.concat(chunks).toString(),
          headers: reply.headers,
        }));
    });
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}
