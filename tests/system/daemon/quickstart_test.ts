/** The first of the README's two commands, as a user runs it: from nothing to two containers that share a volume, once more, and the removal of
 * all. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { command, type Outcome } from "../../support/command.ts";
import { executable, projectRoot } from "../../support/daemon.ts";
import { describe, findTraces, sweep } from "../../support/traces.ts";

/** Driver and configuration of the first pool; $LIDO_TEST_POOLS has other pools, separated by ";". */
const pools = (process.env.LIDO_TEST_POOLS ?? "btrfs size=2GiB").split(";").map((pool) => pool.trim());

for (const pool of pools) {
  Deno.test(`the quickstart, with a pool on ${pool}`, async (t) => {
    const base = realpathSync(mkdtempSync(join(tmpdir(), "lido-quick-")));
    const directory = join(base, "lido");
    const env = { LIDO_DIR: directory, LIDO_POOL: pool };
    const quickstart = async (...words: string[]): Promise<Outcome> => {
      const outcome = await command(["bash", join(projectRoot, "scripts/quickstart.sh"), ...words], {
        env,
        timeoutMs: 300_000,
      });
      assert.equal(outcome.code, 0, outcome.out + outcome.err);
      return outcome;
    };
    const lido = (...argv: string[]) => command([executable, ...argv], { env });
    try {
      await t.step("two containers on two pools share a volume", async () => {
        const { out } = await quickstart();
        assert.match(out, /^hello from c1$/m);
        assert.match(out, /It runs\. Go on with:/);
        assert.match(out, /^\$ lido exec c1 -- sh -c 'echo "hello from /m);
        const { out: list } = await lido("list", "-f", "csv", "-c", "ns");
        assert.equal(list, "c1,RUNNING\nc2,RUNNING\n");
        const { out: listed } = await lido("storage", "list", "-f", "csv");
        assert.match(listed, new RegExp(`^fast,${pool.split(" ")[0]},`, "m"));
      });

      await t.step("it may be run again, and finds all as it was", async () => {
        const { out } = await quickstart();
        assert.match(out, /^hello from c1$/m);
        assert.doesNotMatch(out, /^\$ lido (launch|storage create|storage volume create)/m);
      });

      await t.step("exec tells exit codes and output on that pool", async () => {
        const { code, out } = await lido(
          "exec",
          "c1",
          "--",
          "sh",
          "-c",
          "sleep 1000 & cat /mnt/shared/greeting; exit 42",
        );
        assert.deepEqual([code, out], [42, "hello from c1\n"]);
      });

      await t.step("stop takes all of it away", async () => {
        await quickstart("stop");
        assert.equal(existsSync(directory), false);
        assert.deepEqual(describe(findTraces(base, [directory])), []);
      });
    } finally {
      await sweep(directory);
      rmSync(base, { recursive: true, force: true });
    }
  });
}
