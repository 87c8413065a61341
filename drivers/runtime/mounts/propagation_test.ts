import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Opened, withContainer } from "../../../tests/support/running_container.ts";

/** As systemd starts a service with ProtectHome=yes: it must see later mounts from outside. */
const laterMount = `mkdir -p /mnt/later
unshare -m --propagation slave sh -c 'touch /tmp/inside; until [ -e /tmp/mounted ]; do sleep 0.01; done; cat /mnt/later/word' &
until [ -e /tmp/inside ]; do sleep 0.01; done
mount -t tmpfs none /mnt/later
echo hello >/mnt/later/word
touch /tmp/mounted
wait
umount /mnt/later`;

/** @returns The peer groups of a process's mounts, by mount point. */
function peerGroups(pid: number | "self", kind: "shared" | "master"): Map<string, string> {
  const groups = new Map<string, string>();
  for (const line of readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n").filter(Boolean)) {
    const [fields] = line.split(" - ");
    const group = new RegExp(` ${kind}:(\\d+)`).exec(fields!)?.[1];
    if (group !== undefined) groups.set(group, fields!.split(" ")[4]!);
  }
  return groups;
}

const propagations = ["private", "rslave", "rshared", "unbindable", "runbindable"];

for (const privileged of [false, true]) {
  Deno.test(`mounts are shared within a${privileged ? " privileged" : ""} container, and with nobody else`, () =>
    withContainer(async ({ base, run, runtime, spec }) => {
      assert.deepEqual(await run(["sh", "-c", laterMount]), { status: { code: 0 }, output: "hello\n" });
      const mounts = propagations.map((propagation) => {
        const source = join(base, propagation);
        mkdirSync(source);
        return { source, target: `/srv/${propagation}`, propagation };
      });
      await runtime.start({ ...spec, name: "c2", consoleLog: `${spec.consoleLog}2`, mounts });
      try {
        const groups = ["c1", "c2"].map((name) => peerGroups(runtime.get(name)!.pid, "shared"));
        for (const each of groups) assert.ok([...each.values()].includes("/"), "the root is not shared");
        const [one, other, host] = [...groups, peerGroups("self", "shared")].map((each) => new Set(each.keys()));
        assert.deepEqual(
          [...one!.intersection(other!), ...one!.intersection(host!), ...other!.intersection(host!)],
          [],
        );
        for (const name of ["c1", "c2"]) {
          const { pid } = runtime.get(name)!;
          assert.deepEqual(peerGroups(pid, "master"), new Map(), "a mount follows one outside");
        }
        const before = readFileSync("/proc/self/mountinfo", "utf8").split("\n").length;
        await run(["mount", "-t", "tmpfs", "none", "/mnt"]);
        assert.equal(readFileSync("/proc/self/mountinfo", "utf8").split("\n").length, before);
        assert.doesNotMatch(readFileSync(`/proc/${runtime.get("c2")!.pid}/mountinfo`, "utf8"), / \/mnt /);
      } finally {
        await runtime.destroy("c2");
      }
    }, privileged ? { idmap: undefined, rootfsShifted: false } : {}));
}

/** A mount namespace that receives the container's mounts, with a process in it that waits for input. */
const follower =
  "unshare -m --propagation slave sh -c 'echo $$ >/tmp/pid; read _ </tmp/go; exec sleep 1000' >/dev/null 2>&1 &";

async function startFollower({ run }: Opened): Promise<string> {
  await run(["sh", "-c", `mkfifo /tmp/go; ${follower}\nuntil [ -s /tmp/pid ]; do sleep 0.01; done`]);
  return (await run(["cat", "/tmp/pid"])).output.trim();
}

Deno.test("a mount that is attached and detached comes and goes in the container's other namespaces too", () =>
  withContainer(async (opened) => {
    const { base, run, runtime } = opened;
    const source = join(base, "volume");
    mkdirSync(join(source, "sub"), { recursive: true });
    writeFileSync(join(source, "word"), "attached\n");
    const pid = await startFollower(opened);
    const seen = async (target: string) => (await run(["cat", `/proc/${pid}/root${target}/word`])).output;
    const place = { source, target: "/data", shifted: true };
    await runtime.attach("c1", place);
    assert.equal(await seen("/data"), "attached\n");
    assert.equal(await runtime.isAttached("c1", place), true);
    await runtime.detach("c1", place);
    assert.match(await seen("/data"), /No such file/);
    assert.equal(await runtime.isAttached("c1", place), false);

    // With every propagation, and below a mount that the container made and shares.
    await run(["mount", "-t", "tmpfs", "none", "/mnt"]);
    for (const propagation of propagations) {
      const below = { ...place, target: `/mnt/${propagation}`, propagation };
      await runtime.attach("c1", below);
      assert.equal((await run(["cat", `/mnt/${propagation}/word`])).output, "attached\n", propagation);
      await runtime.detach("c1", below);
      assert.equal(await runtime.isAttached("c1", below), false, propagation);
    }

    await runtime.attach("c1", place);
    const { status } = await run([
      "sh",
      "-c",
      `kill -0 ${pid} && nsenter -t ${pid} -m sh -c 'cd /data && exec sleep 1000' >/dev/null 2>&1 &
      until [ "$(readlink /proc/$!/cwd)" = /data ]; do sleep 0.01; done`,
    ]);
    assert.deepEqual(status, { code: 0 });
    await assert.rejects(runtime.detach("c1", place), /in use by sleep 1000 \(pid \d+\)/);
    await runtime.detach("c1", place, { lazy: true });
    assert.equal(await runtime.isAttached("c1", place), false);
    assert.match(await seen("/data"), /No such file/);
  }));
