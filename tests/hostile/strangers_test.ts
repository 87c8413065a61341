/** Clients without any rights: local users, and network clients with an untrusted certificate. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:https";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import * as tls from "node:tls";
import { WebSocket } from "ws";
import { succeed } from "../support/command.ts";
import { Daemon } from "../support/daemon.ts";
import { freePort } from "../support/free_port.ts";
import { type Identity, identity } from "../support/identity.ts";
import { busyboxImage } from "../support/image.ts";
import type { Answer } from "../support/raw.ts";
import { slowness } from "../support/slowness.ts";

const drip = (socket: Socket, write: () => void) => {
  const timer = setInterval(write, 1_000);
  socket.once("close", () => clearInterval(timer));
};
const post = "POST /1.0/certificates HTTP/1.1\r\nHost: x\r\n";

/** Ways to keep a connection busy. */
const stuck: Readonly<Record<string, { readonly isPlain?: boolean; readonly hold: (socket: Socket) => void }>> = {
  "no handshake": { isPlain: true, hold: () => {} },
  "a handshake by drips": {
    isPlain: true,
    // A record of 512 bytes that is never completed.
    hold: (socket) => {
      socket.write(new Uint8Array([22, 3, 1, 2, 0, 1]));
      drip(socket, () => socket.write("\0"));
    },
  },
  "nothing asked": { hold: () => {} },
  "an endless header": {
    hold: (socket) => {
      socket.write("GET /1.0 HTTP/1.1\r\nHost: x\r\nX: ");
      drip(socket, () => socket.write("x"));
    },
  },
  "an endless body": {
    hold: (socket) => {
      socket.write(`${post}Content-Length: 16000\r\n\r\n{`);
      drip(socket, () => socket.write(" "));
    },
  },
  "a large body": {
    hold: (socket) => {
      socket.write(`${post}Content-Length: 1000000\r\n\r\n{${" ".repeat(900_000)}`);
    },
  },
  "a large body in chunks": {
    hold: (socket) => {
      socket.write(`${post}Transfer-Encoding: chunked\r\n\r\ndbba0\r\n${" ".repeat(900_000)}\r\n`);
    },
  },
  "answers that are not read": {
    hold: (socket) => {
      socket.pause();
      socket.write("GET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500));
    },
  },
};

/** Files that a local user could read, judged by the files' own modes. */
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
      await daemon.kill(); // so that the database's WAL is still there
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
      // A certificate that was trusted while it was valid.
      const seconds = 1 / (24 * 3600);
      const short = await identity("short", { to: 6 * seconds });
      const added = await ask(short, "POST", "/1.0/certificates", { type: "client", password: "s3cret" });
      assert.equal(added.status, 201, JSON.stringify(added.body));
      assert.equal((await ask(short, "GET", "/1.0/instances")).status, 200);
      const before = performance.now();
      let status = 200;
      while (status === 200 && performance.now() - before < 20_000) {
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

    await t.step("500 connections that stand still cost little, make nobody wait, and end", async () => {
      const friend = await identity("friend");
      writeFileSync(`${work}/friend.crt`, friend.cert);
      writeFileSync(`${work}/friend.key`, friend.key);
      assert.equal(
        (await ask(friend, "POST", "/1.0/certificates", { type: "client", password: "s3cret" })).status,
        201,
      );
      const rssMiB = () =>
        Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, "utf8"))![1]) / 1024;
      const descriptors = () => readdirSync(`/proc/${daemon.pid}/fd`).length;
      const open = new Set<Socket>();
      const hold = (kind: string, localAddress: string) => {
        const { isPlain, hold } = stuck[kind]!;
        const where = { host: "127.0.0.1", port, localAddress };
        const plain = connect(where);
        const socket = isPlain ? plain : tls.connect({ socket: plain, rejectUnauthorized: false });
        plain.on("error", () => {});
        socket.once(isPlain ? "connect" : "secureConnect", () => hold(socket));
        open.add(socket);
        socket.on("error", () => {});
        socket.once("close", () => open.delete(socket));
        if (kind !== "answers that are not read") socket.resume();
        return socket;
      };
      /** The longest of `count` requests, each on a new connection, in ms. Uses a process of its own: this one is busy with the attack. */
      const longest = async (count: number) => {
        const curl = ["curl", "-sSk", "--cert", `${work}/friend.crt`, "--key", `${work}/friend.key`];
        const format = ["-o", "/dev/null", "-w", "%{http_code} %{time_total}\n"];
        let most = 0;
        for (let round = 0; round < count; round++) {
          const line = await succeed([...curl, ...format, `https://127.0.0.1:${port}/1.0/instances`]);
          const [status, seconds] = line.split(" ").map(Number);
          assert.equal(status, 200);
          most = Math.max(most, seconds! * 1000);
        }
        return most;
      };
      // What a trusted client keeps open has no deadline: an upload, an idle connection, a websocket.
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const friends = { host: "127.0.0.1", port, rejectUnauthorized: false, ...friend };
      const idle = async () => {
        const [incoming] = await once(request({ ...friends, agent, path: "/1.0/instances" }).end(), "response");
        const { localPort } = incoming.socket;
        for await (const _ of incoming);
        return localPort;
      };
      const idlePort = await idle();
      const octets = { "content-type": "application/octet-stream" };
      const upload = request({ ...friends, agent: false, method: "POST", path: "/1.0/images", headers: octets });
      const uploaded = once(upload, "response");
      upload.write("no image");
      drip(upload.socket ?? (await once(upload, "socket"))[0], () => upload.write("."));
      const events = new WebSocket(`wss://127.0.0.1:${port}/1.0/events`, { rejectUnauthorized: false, ...friend });
      await once(events, "open");
      const before = { rssMiB: rssMiB(), descriptors: descriptors() };
      console.log(`nothing: ${before.rssMiB.toFixed(0)} MiB, the other client ${(await longest(5)).toFixed(0)} ms`);
      try {
        for (const kind of Object.keys(stuck)) {
          const socketsOf500 = Array.from({ length: 500 }, (_, index) => hold(kind, `127.0.0.${2 + index % 5}`));
          const ready = (socket: Socket) => once(socket, stuck[kind]!.isPlain ? "connect" : "secureConnect");
          const opening = Promise.allSettled(
            socketsOf500.map((socket) => Promise.race([ready(socket), once(socket, "close")])),
          );
          const meanwhile = await longest(3);
          await opening;
          const wait = await longest(10);
          const grownMiB = rssMiB() - before.rssMiB;
          console.log(
            `${kind}: ${open.size} open, ${descriptors() - before.descriptors} descriptors, ${
              grownMiB.toFixed(0)
            } MiB more, ` +
              `the other client ${meanwhile.toFixed(0)} ms while they come, then ${wait.toFixed(0)} ms`,
          );
          assert.ok(grownMiB < 200, `${kind}: ${grownMiB.toFixed(0)} MiB more`);
          assert.ok(descriptors() - before.descriptors < 700, `${kind}: ${descriptors()} descriptors`);
          assert.ok(wait < 2_000 * slowness, `${kind}: the other client waited ${wait.toFixed(0)} ms`);
        }
        for (const socket of open) socket.destroy();
        // Each must end by its own deadline, not because other connections displace it. Count the daemon's descriptors: a client that does not read
        // sees no end.
        const count = async (isEnough: (more: number) => boolean) => {
          const started = performance.now();
          while (!isEnough(descriptors() - before.descriptors)) {
            assert.ok(performance.now() - started < 40_000 * slowness, `${descriptors()} descriptors`);
            await new Promise((resolve) => setTimeout(resolve, 100));
          }
          return (performance.now() - started) / 1000;
        };
        await count((more) => more <= 2);
        for (const kind of Object.keys(stuck)) for (let each = 0; each < 8; each++) hold(kind, "127.0.0.9");
        await count((more) => more >= 40);
        console.log(`all ended after ${(await count((more) => more <= 2)).toFixed(1)} s`);
        assert.equal(await idle(), idlePort, "the idle connection was ended");
        assert.equal(events.readyState, WebSocket.OPEN);
        upload.end();
        const [answer] = await uploaded;
        assert.equal(answer.statusCode, 202);
        for await (const _ of answer);
      } finally {
        agent.destroy();
        upload.destroy();
        events.terminate();
        for (const socket of open) socket.destroy();
      }
    });

    await t.step(
      "a page in the browser of who is trusted does nothing here, unless its origin is allowed",
      async () => {
        const user = await identity("user");
        assert.equal(
          (await ask(user, "POST", "/1.0/certificates", { type: "client", password: "s3cret" })).status,
          201,
        );
        const evil = { origin: "https://evil.example", "sec-fetch-site": "cross-site", "user-agent": "Mozilla/5.0" };
        const json = { "content-type": "application/json" };
        const volume = { name: "made-by-a-page" };
        const path = "/1.0/storage-pools/plain/volumes/custom";
        const make = async (headers: Record<string, string>) =>
          (await ask(user, "POST", path, JSON.stringify(volume), headers)).status;
        const websocket = async (headers: Record<string, string>) => {
          const socket = new WebSocket(`wss://127.0.0.1:${port}/1.0/events`, {
            rejectUnauthorized: false,
            ...user,
            headers,
          });
          const [error] = await Promise.race([once(socket, "error"), once(socket, "open").then(() => [undefined])]);
          socket.terminate();
          return error === undefined ? 101 : Number(/\d+$/.exec(String(error.message))?.[0]);
        };
        // A form, a script without preflight, one with preflight, a link, a preflight itself, a websocket.
        assert.equal(await make({ ...evil, "content-type": "text/plain" }), 403);
        assert.equal(await make(evil), 403);
        assert.equal(await make({ ...evil, ...json }), 403);
        assert.equal((await ask(user, "GET", "/1.0", undefined, { referer: "https://evil.example/" })).status, 403);
        assert.equal((await ask(user, "OPTIONS", path, undefined, evil)).status, 403);
        assert.equal(await websocket(evil), 403);
        await daemon.fails(
          ["config", "set", "core.https_allowed_origin", "evil"],
          /Cannot set "core.https_allowed_origin" to "evil": invalid value: "\*", or an origin/,
        );
        await daemon.ok("config", "set", "core.https_allowed_origin", "*");
        assert.equal(await make({ ...evil, "content-type": "text/plain" }), 400);
        assert.equal(await websocket(evil), 403);
        assert.doesNotMatch(JSON.stringify(await daemon.query(path)), /made-by-a-page/);
        assert.equal((await ask(undefined, "OPTIONS", path, undefined, evil)).status, 200, "without a certificate");
        await daemon.ok("config", "set", "core.https_allowed_origin", evil.origin);
        assert.equal(await make({ ...evil, ...json }), 201);
        assert.equal(await websocket(evil), 101);
        // Not a browser: LXD's users send this content type with curl.
        volume.name = "made-by-curl";
        assert.equal(await make({ "content-type": "application/x-www-form-urlencoded" }), 201);
      },
    );

    await t.step("a stranger's body has 16 KiB, however it comes", async () => {
      const body = JSON.stringify({ type: "client", password: "x".repeat(17_000) });
      for (const headers of [{}, { "transfer-encoding": "chunked" }] as Record<string, string>[]) {
        const { status, body: answer } = await ask(undefined, "POST", "/1.0/certificates", body, headers);
        assert.deepEqual([status, answer.error], [413, "The request's body is larger than 16384 bytes"]);
      }
    });
  },
});
