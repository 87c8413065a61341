import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { peerCredentials } from "./unix_peer.ts";

Deno.test("peerCredentials() tells the process at the other end of a unix socket", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-peer-"));
  const path = join(directory, "sock");
  const { promise, resolve } = Promise.withResolvers<net.Socket>();
  const listener = net.createServer(resolve);
  try {
    await new Promise<void>((listening) => listener.listen(path, listening));
    const client = net.connect(path);
    const server = await promise;
    assert.deepEqual(peerCredentials(server), {
      pid: process.pid,
      uid: process.getuid!(),
      gid: process.getgid!(),
    });
    client.destroy();
    server.destroy();
    await new Promise((closed) => listener.close(closed));
    assert.throws(() => peerCredentials(new net.Socket()), /Cannot tell who connected/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
