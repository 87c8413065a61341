/** The guest API: /dev/lxd/sock in real containers. Texts and types are LXD 5.0.2's. */
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { Daemon } from "../../support/daemon.ts";
import { GuestClient } from "../../support/guest_client.ts";
import { busyboxImage } from "../../support/image.ts";

const plain = "text/plain; charset=utf-8", json = "application/json", raw = "application/octet-stream";

Deno.test("the guest API", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await daemon.ok("launch", "bb", "c1", "-c", "user.foo=bar", "-c", "user.a/b=slash", "-c", "limits.processes=100");
  const pidOf = async () => (await daemon.query("/1.0/instances/c1/state") as { pid: number }).pid;
  const rootOf = (pid: number) => statSync(`/proc/${pid}`).uid;
  const pid = await pidOf();
  await using client = new GuestClient(pid, rootOf(pid));
  const list = () => daemon.lido(["exec", "c1", "--", "ls", "-A", "/dev/lxd"]);

  await t.step("an instance learns what it may know of itself", async () => {
    const { config } = await daemon.query("/1.0/instances/c1") as { config: Record<string, string> };
    const metadata = `#cloud-config\ninstance-id: ${config["volatile.cloud-init.instance-id"]}\nlocal-hostname: c1\n`;
    const urls = ["/1.0/config/user.a/b", "/1.0/config/user.foo"];
    const [status, type, body] = await client.ask("GET", "/1.0/config");
    assert.deepEqual([status, type, JSON.parse(body).sort()], [200, json, urls]);
    const devices = '{"root":{"path":"/","pool":"fast","type":"disk"}}\n';
    const self = '{"state":"","api_version":"1.0","instance_type":"container","location":"none"}\n';
    const expected: [string, string, number, string, string][] = [
      ["GET", "/", 200, json, '["/1.0"]\n'],
      ["GET", "/1.0", 200, json, self],
      ["PUT", "/1.0", 200, json, self],
      ["HEAD", "/1.0", 200, json, ""],
      ["GET", "/1.0/config/user.foo", 200, raw, "bar"],
      ["GET", "/1.0/config/user.a%2Fb", 200, raw, "slash"],
      ["GET", "/1.0/config/user.none", 404, plain, "not found\n"],
      ["GET", "/1.0/config/limits.processes", 403, plain, "not authorized\n"],
      ["GET", "/1.0/meta-data", 200, raw, metadata],
      ["GET", "/1.0/images/abc/export", 403, plain, "not authorized\n"],
      ["GET", "/1.0/instances", 404, plain, "404 page not found\n"],
      ["GET", "/1.0/", 404, plain, "404 page not found\n"],
    ];
    for (const [method, path, ...answer] of expected) assert.deepEqual(await client.ask(method, path), answer, path);
    const [, , shown] = await client.ask("GET", "/1.0/devices");
    assert.deepEqual(JSON.parse(shown), JSON.parse(devices));
  });

  await t.step("only its root may ask, and nobody on the host passes by", async () => {
    await using other = new GuestClient(pid, rootOf(pid) + 1000);
    assert.deepEqual(await other.ask("GET", "/1.0"), [401, plain, "Access denied for non-root user\n"]);
    assert.deepEqual(await other.ask("GET", "/1.0/events"), [401, plain, "Access denied for non-root user\n"]);
    await using host = new GuestClient(pid, 0);
    assert.deepEqual((await host.ask("GET", "/1.0"))[0], 401);
    assert.equal(statSync(join(daemon.directory, "devlxd")).mode & 0o777, 0o700);
    const script = "stat -c %a /dev/lxd /dev/lxd/sock; touch /dev/lxd/x 2>&1 || true";
    assert.equal(
      await daemon.ok("exec", "c1", "--", "sh", "-c", script),
      "755\n666\ntouch: /dev/lxd/x: Read-only file system",
    );
    // A separate tmpfs: it shows nothing of the host's filesystem, and df still shows a root that is on the host's filesystem.
    assert.equal(await daemon.ok("exec", "c1", "--", "stat", "-f", "-c", "%T", "/dev/lxd"), "tmpfs");
  });

  await t.step("its events come by a websocket and by a bare stream", async () => {
    const bare = client.connect("GET /1.0/events HTTP/1.1\r\nHost: lxd\r\n\r\n");
    const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const socket = client.connect(`GET /1.0/events?type=device HTTP/1.1\r\nHost: lxd\r\n${upgrade}\r\n`);
    await bare.sees(/^HTTP\/1\.1 200 OK\r\n(.*\r\n)+\r\n/);
    await socket.sees(/^HTTP\/1\.1 101 .*\r\n[^]*s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/);
    await daemon.ok("config", "set", "c1", "user.foo=baz");
    await daemon.ok("config", "set", "c1", "limits.processes=200");
    await daemon.ok("profile", "set", "default", "user.more=x");
    await daemon.ok("storage", "volume", "create", "fast", "v");
    await daemon.ok("storage", "volume", "attach", "fast", "v", "c1", "/v");
    await daemon.ok("storage", "volume", "detach", "fast", "v", "c1");
    await daemon.ok("profile", "unset", "default", "user.more");
    const added =
      `"metadata":{"action":"added","config":{"type":"disk","pool":"fast","source":"v","path":"/v"},"name":"v"}`;
    await bare.sees(/"key":"user.more","old_value":"x","value":""/);
    await socket.sees(/"action":"removed"/);
    const events = bare.text.split("\r\n\r\n")[1]!.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(events.map(({ type, metadata }) => [type, metadata.key ?? metadata.action]), [
      ["config", "user.foo"],
      ["config", "user.more"],
      ["device", "added"],
      ["device", "removed"],
      ["config", "user.more"],
    ]);
    assert.deepEqual(Object.keys(events[0]), ["type", "timestamp", "metadata"]);
    assert.deepEqual(events[0].metadata, { key: "user.foo", old_value: "bar", value: "baz" });
    assert.deepEqual(events[2].metadata, JSON.parse(`{${added}}`).metadata);
    assert.ok(!socket.text.includes("user."), "only what was asked for");
  });

  await t.step("another seed is another instance to cloud-init", async () => {
    const id = async () => (await client.ask("GET", "/1.0/meta-data"))[2];
    const before = await id();
    await daemon.ok("config", "set", "c1", "user.foo=again");
    assert.equal(await id(), before);
    await daemon.ok("config", "set", "c1", "cloud-init.user-data=#cloud-config\npackages: [vim]");
    assert.notEqual(await id(), before);
    const [, , seed] = await client.ask("GET", "/1.0/config/cloud-init.user-data");
    assert.equal(seed, "#cloud-config\npackages: [vim]");
    await daemon.fails(["config", "set", "c1", "cloud-init.user-data=#cloud-config\na: [1"], /Invalid YAML: /);
  });

  await t.step("a hostile guest ends its own connections alone", async () => {
    const head = "GET /1.0 HTTP/1.1\r\nHost: lxd\r\n";
    assert.doesNotMatch(await client.connect(`${head}X: ${"a".repeat(20_000)}\r\n\r\n`).whole(), /^HTTP\/1.1 200/);
    assert.match(
      await client.connect(`${head}Content-Length: 9999999\r\n\r\n${"a".repeat(99_999)}`).whole(),
      /^HTTP\/1.1 200/,
    );
    assert.equal((await client.connect(`${head}\r\n`.repeat(1000)).whole()).match(/HTTP\/1.1 200/g)?.length ?? 0, 0);
    const many = Array.from({ length: 64 }, () => client.connect("GET /1.0/events HTTP/1.1\r\nHost: lxd\r\n\r\n"));
    await Promise.all(many.map((one) => one.until(() => one.isOver || one.text !== "")));
    const refused = many.filter((one) => one.isOver).length;
    assert.ok(refused >= 48 && refused < 64, `${refused} of 64 were refused`);
    // Other containers are served as before.
    await daemon.ok("launch", "bb", "c2");
    const { pid: second } = await daemon.query("/1.0/instances/c2/state") as { pid: number };
    await using neighbour = new GuestClient(second, rootOf(second));
    assert.equal((await neighbour.ask("GET", "/1.0"))[0], 200);
    await daemon.ok("delete", "-f", "c2");
  });

  await t.step("it is served again after the daemon was killed", async () => {
    await daemon.kill();
    await daemon.up();
    await using again = new GuestClient(pid, rootOf(pid));
    assert.deepEqual((await again.ask("GET", "/1.0/config/user.foo"))[2], "again");
  });

  await t.step(
    "security.devlxd takes it away and gives it back at once; without it there is none at a start",
    async () => {
      await daemon.fails(["config", "set", "c1", "security.devlxd=maybe"], /Invalid value for a boolean "maybe"/);
      await daemon.ok("config", "set", "c1", "security.devlxd=false");
      assert.notEqual((await list()).code, 0);
      await daemon.ok("profile", "set", "default", "security.devlxd=false");
      await daemon.ok("config", "unset", "c1", "security.devlxd");
      assert.notEqual((await list()).code, 0);
      await daemon.ok("profile", "unset", "default", "security.devlxd");
      assert.equal((await list()).out, "sock\n");
      await using again = new GuestClient(pid, rootOf(pid));
      assert.equal((await again.ask("GET", "/1.0"))[0], 200);
      await daemon.ok("config", "set", "c1", "security.devlxd=false");
      await daemon.ok("restart", "-f", "c1");
      assert.notEqual((await list()).code, 0);
      await daemon.ok("stop", "-f", "c1");
      assert.throws(() => statSync(join(daemon.directory, "devlxd/c1")), { code: "ENOENT" });
    },
  );

  await t.step("with another name it is another instance to cloud-init", async () => {
    const id = async (name: string) =>
      (await daemon.query(`/1.0/instances/${name}`) as { config: Record<string, string> })
        .config["volatile.cloud-init.instance-id"];
    const before = await id("c1");
    await daemon.ok("rename", "c1", "c3");
    assert.match(await id("c3") ?? "", /^[0-9a-f-]{36}$/);
    assert.notEqual(await id("c3"), before);
  });
});
