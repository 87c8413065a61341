/** Under Deno's sanitizers: a timer that is not cleared fails the test. */
import assert from "node:assert/strict";
import { LidoError } from "../../api/errors.ts";
import { ClientSockets } from "./client_sockets.ts";
import { Session } from "./session.ts";

Deno.test("a client that does not come leaves no timer, and its command was not started", async () => {
  const session = new Session({ interactive: true, eager: false });
  let started = 0;
  const launch = () => {
    started++;
    return Promise.reject(new Error("not to be started"));
  };
  const late = { code: "bad_request", message: "Timed out waiting for websockets to connect" }; // the client's fault, not the daemon's
  await assert.rejects(session.run(launch), late);
  assert.equal(started, 0);
  assert.throws(() => session.connect(session.fds["0"]!), /The command has ended/);
});

Deno.test("a wait that is cancelled leaves no timer", async () => {
  const session = new Session({ interactive: false, eager: false });
  const ended = session.run(() => Promise.reject(new Error("not to be started")));
  session.abandon();
  await assert.rejects(ended, /The command was cancelled/);
});

Deno.test("each stream has a secret of its own; any other is refused", () => {
  const sockets = new ClientSockets(false);
  assert.deepEqual(Object.keys(sockets.fds), ["0", "1", "2", "control"]);
  assert.equal(new Set(Object.values(sockets.fds)).size, 4);
  for (const secret of Object.values(sockets.fds)) assert.match(secret, /^[0-9a-f]{64}$/);
  const forbidden = (error: unknown) => error instanceof LidoError && error.code === "forbidden";
  for (const secret of ["", "0", "x".repeat(64), "é".repeat(64)]) {
    assert.throws(() => sockets.connect(secret), forbidden);
  }
});
