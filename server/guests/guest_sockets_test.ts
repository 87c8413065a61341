import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createHost } from "../../drivers/host/real.ts";
import { GuestSockets } from "./guest_sockets.ts";
import { SocketDirectory } from "./socket_directory.ts";

const head = "GET /1.0 HTTP/1.1\r\nHost: lxd\r\n";

async function withSockets(
  limits: { patienceMs?: number; connectionsOfAll?: number },
  test: (connect: (name: string, raw?: string) => net.Socket, sockets: GuestSockets) => Promise<void>,
): Promise<void> {
  // Longer than a socket's path may be.
  const root = join(mkdtempSync(join(tmpdir(), "lido-guests-")), "d".repeat(100));
  const sockets = new GuestSockets({
    directory: new SocketDirectory(root, createHost().mounts),
    answer: (name) => new Response(name),
    rootUid: () => process.getuid!(),
    mayListen: () => true,
    limits,
  });
  const directories = new Map<string, number>();
  try {
    for (const name of ["c1", "c2"]) {
      await sockets.open(name);
      directories.set(name, openSync(sockets.directory(name), "r"));
    }
    await test((name, raw = "") => {
      const socket = net.connect(`/proc/self/fd/${directories.get(name)}/sock`, () => socket.write(raw));
      socket.on("error", () => {});
      return socket;
    }, sockets);
  } finally {
    for (const fd of directories.values()) closeSync(fd);
    for (const name of directories.keys()) await sockets.delete(name);
    await sockets.closeAll();
    rmSync(join(root, ".."), { recursive: true });
  }
}

async function received(socket: net.Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk) => text += chunk);
  await closed(socket);
  return text;
}

function closed(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

Deno.test("GuestSockets: a client that is silent, slow or never done is dropped; what it drips does not help it", () =>
  withSockets({ patienceMs: 150 }, async (connect) => {
    const dripping = connect("c1", head);
    const drip = setInterval(() => dripping.write("X: y\r\n"), 20);
    const [silent, slow, dripped, kept] = await Promise.all([
      received(connect("c1")),
      received(connect("c1", "GET /1.0 HT")),
      received(dripping),
      received(connect("c1", `${head}\r\n`)),
    ]);
    clearInterval(drip);
    assert.deepEqual([silent, slow, dripped], ["", "", ""]);
    assert.match(kept, /^HTTP\/1.1 200 OK[^]*c1$/);
  }));

Deno.test("GuestSockets: one container cannot take all connections from the others", () =>
  withSockets({ connectionsOfAll: 4 }, async (connect) => {
    const streams = Array.from({ length: 4 }, () => connect("c1", "GET /1.0/events HTTP/1.1\r\nHost: lxd\r\n\r\n"));
    for (const stream of streams) await once(stream, "data");
    assert.equal(await received(connect("c1", `${head}\r\n`)), "");
    const other = connect("c2", `${head}Connection: close\r\n\r\n`);
    assert.match(await received(other), /c2$/);
    for (const stream of streams) stream.destroy();
  }));

Deno.test("GuestSockets: a guest that does not read its events is dropped", () =>
  withSockets({}, async (connect, sockets) => {
    const stream = connect("c1", "GET /1.0/events?type=config HTTP/1.1\r\nHost: lxd\r\n\r\n");
    await once(stream, "data");
    stream.pause();
    const end = closed(stream);
    const value = "x".repeat(100_000);
    for (let count = 0; count < 20; count++) {
      sockets.publish("c1", { type: "config", timestamp: "", metadata: { key: "user.x", old_value: "", value } });
    }
    stream.resume();
    await end;
    assert.ok(stream.bytesRead < 1_000_000, `${stream.bytesRead} bytes were queued`);
  }));
