/** The API over mutual TLS, on loopback and over a link that goes down. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { WebSocket } from "ws";
import { connect } from "../../../mod.ts";
import { command, succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { freePort } from "../../support/free_port.ts";
import { type Identity, identity } from "../../support/identity.ts";
import { busyboxImage } from "../../support/image.ts";
import type { Answer } from "../../support/raw.ts";

Deno.test({
  name: "the API over the network",
  sanitizeOps: false, // TLS sockets of node:https close in their own time
  sanitizeResources: false,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    await daemon.furnish(await busyboxImage());
    await daemon.ok("launch", "bb", "c1");
    const port = await freePort();
    const work = daemon.directory;
    const ours = await identity("ours"), other = await identity("other");
    writeFileSync(`${work}/other.crt`, other.cert);

    const ask = (
      who: Identity | undefined,
      method: string,
      path: string,
      body?: unknown,
    ): Promise<Answer> =>
      new Promise((resolve, reject) => {
        const outgoing = request(
          { host: "127.0.0.1", port, method, path, rejectUnauthorized: false, agent: false, ...who },
          async (incoming) => {
            const chunks: Uint8Array[] = [];
            for await (const chunk of incoming) chunks.push(chunk as Uint8Array);
            resolve({ status: incoming.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString()) });
          },
        );
        outgoing.on("error", reject);
        outgoing.end(body === undefined ? undefined : JSON.stringify(body));
      });
    const isRefused = async (who: Identity | undefined, method: string, path: string, body?: unknown) => {
      const answer = await ask(who, method, path, body);
      assert.deepEqual([answer.status, answer.body.error], [403, "not authorized"], `${method} ${path}`);
    };

    await t.step(
      "nothing is served before it is asked for; what cannot be is refused and changes nothing",
      async () => {
        await assert.rejects(ask(ours, "GET", "/1.0"), /ECONNREFUSED|refused/);
        await daemon.fails(
          ["config", "set", "core.https_address", "a b"],
          /Cannot set "core.https_address" to "a b": invalid value: HOST, HOST:PORT, .* is allowed$/m,
        );
        await daemon.fails(["config", "set", "core.https_address", "192.0.2.1:1"], /Cannot listen on "192.0.2.1:1"/);
        assert.equal(await daemon.ok("config", "get", "core.https_address"), "");
      },
    );

    await t.step("a stranger learns the API's version, and nothing else", async () => {
      await daemon.ok("config", "set", "core.https_address", `127.0.0.1:${port}`);
      assert.equal(statSync(`${work}/server.key`).mode & 0o777, 0o600);
      for (const who of [undefined, ours]) {
        const { status, body } = await ask(who, "GET", "/1.0");
        assert.deepEqual([status, body.metadata.auth, body.metadata.environment], [200, "untrusted", undefined]);
        await isRefused(who, "GET", "/1.0/instances");
        await isRefused(who, "GET", "/1.0/certificates");
        await isRefused(who, "GET", "/1.0/nosuch");
        await isRefused(who, "PUT", "/1.0", { config: {} });
        await isRefused(who, "POST", "/1.0/instances/c1/exec", { command: ["true"] });
        await isRefused(who, "POST", "/1.0/certificates", { type: "client", password: "guess" });
      }
      const events = new WebSocket(`wss://127.0.0.1:${port}/1.0/events`, { rejectUnauthorized: false, ...ours });
      const [error] = await once(events, "error");
      assert.match(String(error), /403/);
    });

    await t.step(
      "the same port is listened on by all addresses and by one again; what cannot be leaves it",
      async () => {
        for (const address of [`:${port}`, `127.0.0.1:${port}`]) {
          await daemon.ok("config", "set", "core.https_address", address);
          assert.equal((await ask(ours, "GET", "/1.0")).status, 200, address);
        }
        const nowhere = `192.0.2.1:${port}`;
        await daemon.fails(["config", "set", "core.https_address", nowhere], /Cannot listen on "192.0.2.1:/);
        assert.equal((await ask(ours, "GET", "/1.0")).status, 200);
        assert.equal(await daemon.ok("config", "get", "core.https_address"), `127.0.0.1:${port}`);
      },
    );

    await t.step("with the trust password a client adds its own certificate, and no other", async () => {
      await daemon.ok("config", "set", "core.trust_password", "s3cret");
      assert.doesNotMatch(JSON.stringify(await daemon.query("/1.0")), /s3cret/);
      assert.equal(
        (await daemon.query("/1.0") as { config: Record<string, unknown> }).config["core.trust_password"],
        true,
      );
      await isRefused(ours, "POST", "/1.0/certificates", { type: "client", password: "s3cre" });
      const added = await ask(ours, "POST", "/1.0/certificates", {
        type: "client",
        password: "s3cret",
        certificate: other.cert, // the certificate in an untrusted client's body is ignored
      });
      assert.equal(added.status, 201);
      assert.equal((await ask(ours, "GET", "/1.0")).body.metadata.auth, "trusted");
      assert.equal((await ask(ours, "GET", "/1.0/instances")).status, 200);
      await isRefused(other, "GET", "/1.0/instances");
      await daemon.ok("config", "set", "user.note", "x"); // sends the config back, with the password's placeholder
      await isRefused(other, "POST", "/1.0/certificates", { type: "client", password: "true" });
      assert.doesNotMatch(daemon.log, /s3cret/);
      assert.match(await daemon.ok("config", "trust", "list", "-f", "csv"), /^client,ours,ours,[0-9a-f]{12},/);
    });

    await t.step("exec by the library, and the owner's trust comes and goes", async () => {
      await daemon.ok("config", "trust", "add", `${work}/other.crt`);
      await daemon.fails(["config", "trust", "add", `${work}/other.crt`], /already in trust store/);
      await daemon.fails(["config", "trust", "add", "/etc/passwd"], /Invalid certificate/);
      const url = `https://127.0.0.1:${port}`;
      const serverCertificate = readFileSync(`${work}/server.crt`, "utf8");
      await using lido = await connect({
        kind: "https",
        url,
        certificate: other.cert,
        key: other.key,
        serverCertificate,
      });
      const process = await lido.instance("c1").exec(["sh", "-c", "cat; exit 3"]);
      const writer = process.stdin.getWriter();
      await writer.write(new TextEncoder().encode("across\n"));
      await writer.close();
      assert.equal(await new Response(process.stdout).text(), "across\n");
      assert.equal((await process.status).code, 3);
      const name = "other.crt";
      const all = JSON.parse(await daemon.ok("config", "trust", "list", "-f", "json")) as {
        name: string;
        fingerprint: string;
      }[];
      const { fingerprint } = all.find((one) => one.name === name)!;
      await daemon.ok("config", "trust", "remove", fingerprint.slice(0, 12));
      await isRefused(other, "GET", "/1.0/instances");
    });

    await t.step("the real client as a remote", async () => {
      await daemon.lxc(
        "remote",
        "add",
        "there",
        `https://127.0.0.1:${port}`,
        "--accept-certificate",
        "--password",
        "s3cret",
      );
      assert.match(await daemon.lxc("list", "there:", "-f", "csv", "-c", "ns"), /^c1,RUNNING$/m);
      assert.equal(await daemon.lxc("exec", "there:c1", "--", "echo", "hello"), "hello");
    });

    await t.step("a cable that is cut: the command is killed within 20 s", async () => {
      const name = `lido-${daemon.pid}`;
      const hostEnd = `lh${daemon.pid}`, guestEnd = `lg${daemon.pid}`;
      const ip = (...argv: string[]) => succeed(["ip", ...argv]);
      await ip("netns", "add", name);
      try {
        await ip("link", "add", hostEnd, "type", "veth", "peer", "name", guestEnd, "netns", name);
        await ip("addr", "add", "198.18.77.1/30", "dev", hostEnd);
        await ip("link", "set", hostEnd, "up");
        await ip("-n", name, "addr", "add", "198.18.77.2/30", "dev", guestEnd);
        await ip("-n", name, "link", "set", guestEnd, "up");
        await daemon.ok("config", "set", "core.https_address", `198.18.77.1:${port}`);
        const home = `${daemon.directory}.lxc`;
        const env = { ...process.env, LXD_CONF: home, HOME: home };
        await succeed([
          "ip",
          "netns",
          "exec",
          name,
          "lxc",
          "remote",
          "add",
          "far",
          `https://198.18.77.1:${port}`,
          "--accept-certificate",
          "--password",
          "s3cret",
        ], { env });
        const client = spawn("ip", [
          "netns",
          "exec",
          name,
          "lxc",
          "exec",
          "far:c1",
          "--",
          "sh",
          "-c",
          "echo up; exec sleep 1000",
        ], { env, stdio: ["pipe", "pipe", "inherit"] });
        await once(client.stdout, "data");
        await ip("-n", name, "link", "set", guestEnd, "down"); // neither FIN nor RST is sent
        const started = performance.now();
        const running = async () =>
          ((await daemon.query("/1.0/operations")) as { running?: string[] }).running?.length ?? 0;
        assert.equal(await running(), 1);
        while (await running() > 0 && performance.now() - started < 20_000) {
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        const seconds = (performance.now() - started) / 1000;
        assert.equal(await running(), 0, "it still runs after 20 s");
        console.log(`noticed after ${seconds.toFixed(1)} s`);
        const { out } = await daemon.lido(["exec", "c1", "--", "sh", "-c", "ps -o args | grep -c '[s]leep 1000'"]);
        assert.equal(out, "0\n");
        client.kill("SIGKILL");
        await once(client, "exit");
      } finally {
        await command(["ip", "link", "del", hostEnd]);
        await ip("netns", "del", name);
      }
    });

    await t.step("it ends when the address is taken away", async () => {
      await daemon.ok("config", "unset", "core.https_address");
      await assert.rejects(ask(ours, "GET", "/1.0"), /ECONNREFUSED|refused/);
    });
  },
});
