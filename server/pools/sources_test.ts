import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HangingFuse } from "../../tests/support/hanging_fuse.ts";
import type { Pool } from "../../drivers/storage/driver.ts";
import { PoolSources } from "./sources.ts";
import { PoolAvailability } from "./availability.ts";

/** Ends the process when `work`, which may block its only thread, does not end in time. */
async function within<T>(seconds: number, work: () => T | Promise<T>): Promise<T> {
  const script = 'sleep "$1" && kill -9 "$2"';
  const watchdog = spawn("sh", ["-c", script, "sh", String(seconds), String(process.pid)], { detached: true });
  try {
    return await work();
  } finally {
    process.kill(-watchdog.pid!, "SIGKILL");
  }
}

Deno.test("a pool whose filesystem does not answer is noticed without being touched, and unavailable until it does", () =>
  within(60, async () => {
    const root = mkdtempSync(join(tmpdir(), "lido-source-"));
    try {
      const pool: Pool = { name: "p", root, diskFile: join(root, "none.img"), config: { source: "/srv/pool" } };
      const asked: string[] = [];
      let answer = Promise.resolve();
      const sources = new PoolSources(
        (tenant, path) => {
          asked.push(`${tenant} ${path}`);
          return answer;
        },
        { unmount: () => assert.fail("it may answer again") },
        { pendingMaxMs: 100 },
      );
      const turn = () => new Promise((resolve) => setImmediate(resolve));
      {
        await using _fuse = await HangingFuse.mount(root);
        const presence = new PoolAvailability(pool);
        assert.equal(presence.absence(), undefined);
        sources.watch(pool);
        const refusal = Promise.withResolvers<void>();
        answer = refusal.promise;
        sources.look();
        sources.look(); // a look is already pending: no second one
        assert.equal(sources.silence("p"), undefined);
        const asleep = performance.now() + 101;
        while (performance.now() < asleep) await turn();
        assert.match(sources.silence("p")!, /has not answered for 0 s$/);
        refusal.reject(new Error("it did not answer"));
        await turn();
        assert.equal(sources.silence("p"), "it did not answer");
        assert.deepEqual(asked.splice(0), [`/pools/p ${root}`]);
        await assert.rejects(sources.need(pool), /it did not answer/);
        await assert.rejects(sources.needNew(pool), /it did not answer/);
        assert.deepEqual(asked.splice(0), ["/pools/p /srv/pool", "/pools /srv/pool"]);
        await sources.answered("p"); // known to be silent: resolves without a look
        assert.deepEqual(asked, []);
        answer = Promise.resolve();
        sources.look();
        await turn();
        assert.equal(sources.silence("p"), undefined);
        assert.equal(presence.absence(), undefined);
        asked.splice(0);
        answer = Promise.reject(new Error("not now"));
        await Promise.all([sources.answered("p"), sources.answered("p")]);
        assert.deepEqual(asked, [`/pools/p ${root}`], "two that begin ask once");
        assert.equal(sources.silence("p"), "not now");
        await _fuse[Symbol.asyncDispose]();
        assert.match(presence.absence()!, /not mounted at/);
      }
      sources.forget("p");
      asked.splice(0);
      sources.look();
      sources.watch(pool); // a directory of the host, which cannot hang
      sources.look();
      assert.equal(sources.answered("p"), undefined);
      assert.deepEqual(asked, []);
      sources.close();
    } finally {
      rmdirSync(root);
    }
  }));

Deno.test("a pool whose filesystem's process has ended is named in errors, and its mount goes when its source answers", () =>
  within(60, async () => {
    const root = mkdtempSync(join(tmpdir(), "lido-source-"));
    try {
      await using fuse = await HangingFuse.mount(root);
      await fuse.kill();
      const unmounted: string[] = [];
      const away = Object.assign(new Error(`ENOTCONN: not connected, lstat '${root}/custom/default_v'`), {
        code: "ENOTCONN",
      });
      const sources = new PoolSources((_tenant, path) => {
        return path === root ? Promise.reject(new Error("cannot be used", { cause: away })) : Promise.resolve();
      }, { unmount: (path) => Promise.resolve(void unmounted.push(path)) });
      const pool: Pool = { name: "p", root, diskFile: join(root, "none.img"), config: { source: "/srv/pool" } };
      assert.equal(sources.explain(away), away, "nobody watches it");
      sources.watch(pool);
      assert.match(String(sources.explain(away)), /Storage pool "p" is unavailable: ".*": transport endpoint is not/);
      for (
        const other of [new Error(away.message), Object.assign(new Error(`${root}2/v`), { code: "ENOTCONN" }), null]
      ) {
        assert.equal(sources.explain(other), other);
      }
      await assert.rejects(sources.need({ ...pool, config: { source: root } }), /cannot be used/);
      assert.deepEqual(unmounted, []);
      await sources.need(pool);
      assert.deepEqual(unmounted, [root]);
      sources.close();
    } finally {
      rmdirSync(root);
    }
  }));
