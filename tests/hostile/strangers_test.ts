/** Who has no right to anything: local users, and clients on the network whose certificate nobody trusts. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, readdirSync, statSync } from "node:fs";
import { request } from "node:https";
import { createServer } from "node:net";
import { join } from "node:path";
import { Daemon } from "../support/daemon.ts";
import { type Identity, identity } from "../support/identity.ts";
import { busyboxImage } from "../support/image.ts";
import type { Answer } from "../support/raw.ts";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** Files that a local user could read if it were for their own mode. */
function readable(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return readable(path);
    return entry.isFile() && (statSync(path).mode & 0o077) !== 0 ? [path] : [];
  });
}

Deno.test({
  name: "strangers",
  sanitizeOps: false, // TLS sockets of node:https close in their own time
  sanitizeResources: false,
  fn: async (t) => {
    await using daemon = await Daemon.start();
    await daemon.furnish(await busyboxImage());
    const port = await freePort();
    const work = daemon.directory;

    const ask = (
      who: Identity | undefined,
      method: string,
      path: string,
      body?: unknown,
      headers: Record<string, string> = {},
    ): Promise<Answer> =>
      new Promise((resolve, reject) => {
        const outgoing = request(
          { host: "127.0.0.1", port, method, path, headers, rejectUnauthorized: false, agent: false, ...who },
          async (incoming) => {
            const chunks: Uint8Array[] = [];
            for await (const chunk of incoming) chunks.push(chunk as Uint8Array);
            const text = Buffer.concat(chunks).toString();
            resolve({ status: incoming.statusCode ?? 0, body: text === "" ? undefined : JSON.parse(text) });
          },
        );
        outgoing.on("error", reject);
        outgoing.end(body === undefined || typeof body === "string" ? body : JSON.stringify(body));
      });
    const api = async (method: string, path: string, body: unknown) =>
      await daemon.ok("query", "-X", method, "-d", JSON.stringify(body), path);

    await t.step("a local user reads no file of the daemon's, nor what an earlier version left", async () => {
      await daemon.ok("config", "set", "core.https_address", `127.0.0.1:${port}`);
      await daemon.ok("storage", "volume", "create", "plain", "v");
      const isOurs = (path: string) => !["server.crt", "lido.pid"].some((name) => path === join(work, name));
      const found = () =>
        [
          ...readdirSync(work).map((name) => join(work, name)).filter((path) => statSync(path).isFile())
            .filter((path) => (statSync(path).mode & 0o077) !== 0),
          ...["images", "backups", "pools", "disks"].flatMap((name) => readable(join(work, name))),
        ].filter(isOurs);
      assert.deepEqual(found(), []);
      await daemon.kill(); // so that the database's log stays
      const files = [
        ...["lido.db", "lido.db-wal", "lido.db-shm", "server.key"].map((name) => join(work, name)),
        ...readdirSync(join(work, "images")).map((name) => join(work, "images", name)),
      ];
      for (const path of files) chmodSync(path, 0o644);
      chmodSync(join(work, "backups"), 0o755);
      await daemon.up();
      assert.deepEqual(found(), []);
      for (const name of ["images", "backups", "pools", "disks", "logs", "run", "devlxd"]) {
        assert.equal(statSync(join(work, name)).mode & 0o777, 0o700, name);
      }
    });

    await t.step("a certificate that is not valid at this time is nobody's", async () => {
      const dates = { late: { from: -9, to: -2 }, early: { from: 2, to: 9 } };
      for (const [name, range] of Object.entries(dates)) {
        const who = await identity(name, range);
        const text = who.cert.split("\n").filter((line) => !line.startsWith("-----")).join("");
        await assert.rejects(
          api("POST", "/1.0/certificates", { type: "client", name, certificate: text }),
          name === "late" ? /The provided certificate is expired/ : /The provided certificate isn't valid yet/,
        );
        await daemon.ok("config", "set", "core.trust_password", "s3cret");
        const own = await ask(who, "POST", "/1.0/certificates", { type: "client", password: "s3cret" });
        assert.equal(own.status, 400, JSON.stringify(own.body));
      }
      // One that was trusted while it was valid.
      const seconds = 1 / (24 * 3600);
      const short = await identity("short", { to: 4 * seconds });
      const added = await ask(short, "POST", "/1.0/certificates", { type: "client", password: "s3cret" });
      assert.equal(added.status, 201, JSON.stringify(added.body));
      assert.equal((await ask(short, "GET", "/1.0/instances")).status, 200);
      const before = performance.now();
      let status = 200;
      while (status === 200 && performance.now() - before < 10_000) {
        await new Promise((resolve) => setTimeout(resolve, 250));
        ({ status } = await ask(short, "GET", "/1.0/instances"));
      }
      assert.equal(status, 403);
      assert.equal((await ask(short, "GET", "/1.0")).body.metadata.auth, "untrusted");
    });

    await t.step("who guesses the password waits, and is in the log", async () => {
      const guesser = await identity("guesser");
      const guess = (password: string) => ask(guesser, "POST", "/1.0/certificates", { type: "client", password });
      const started = performance.now();
      const answers = await Promise.all(Array.from({ length: 40 }, (_, index) => guess(`guess${index}`)));
      assert.equal(answers.filter(({ status }) => status === 403).length, 1, "one guess of an address at a time");
      assert.equal(answers.filter(({ status }) => status === 503).length, 39);
      assert.equal((await guess("guess")).status, 403);
      assert.ok(performance.now() - started > 2_900, "1 s after the first, 2 s after the second");
      const lines = daemon.log.split("\n").filter((line) => line.includes("wrong trust password"));
      assert.deepEqual(
        lines.map((line) => JSON.parse(line)).map(({ address, wrong }) => [address, wrong]),
        [["127.0.0.1", 1], ["127.0.0.1", 2]],
      );
      assert.doesNotMatch(daemon.log, /guess\d/);
      assert.equal((await guess("s3cret")).status, 201);
    });
  },
});
