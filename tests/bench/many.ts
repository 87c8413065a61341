/** Costs of a thousand volumes with ten snapshots each: creation, listing, memory, start of the daemon.
 *   Environment: VOLUMES (1000), SNAPSHOTS (10), POOL (btrfs) */
import { readFileSync } from "node:fs";
import process from "node:process";
import { succeed } from "../support/command.ts";
import { Daemon, executable } from "../support/daemon.ts";
import { RawClient } from "../support/raw.ts";

const volumes = Number(process.env.VOLUMES ?? 1000);
const snapshots = Number(process.env.SNAPSHOTS ?? 10);
const driver = process.env.POOL ?? "btrfs";
const rounds = 7;
const say = (what: string, text: string) => console.log(what.padEnd(60) + text.padStart(20));

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

async function median(work: () => Promise<unknown>): Promise<number> {
  const all: number[] = [];
  for (let round = 0; round < rounds; round++) all.push(await timed(work));
  return all.sort((a, b) => a - b)[Math.floor(rounds / 2)]!;
}

const memory = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024;

await using daemon = await Daemon.start();
await daemon.ok("storage", "create", "p", driver, ...(driver === "dir" ? [] : ["size=8GiB"]));
const raw = new RawClient(daemon.directory);
const path = "/1.0/storage-pools/p/volumes/custom";
const post = async (to: string, body: object) => {
  const answer = await raw.ask("POST", to, body);
  if (answer.status === 202) await raw.wait(answer.body.metadata.id);
  else if (answer.status >= 300) throw new Error(`${answer.status}: ${answer.body.error}`);
};
const names = Array.from({ length: volumes }, (_, index) => `v${index}`);
say("memory of the daemon, empty", `${memory(daemon.pid).toFixed(1)} MiB`);
const creating = await timed(async () => {
  for (const name of names) await post(path, { name, type: "custom" });
});
say(`${volumes} volumes (${driver})`, `${(volumes / creating * 1000).toFixed(1)} a second`);
const snapping = await timed(async () => {
  for (const name of names) {
    for (let index = 0; index < snapshots; index++) await post(`${path}/${name}/snapshots`, { name: `s${index}` });
  }
});
say(`${volumes * snapshots} snapshots (${driver})`, `${(volumes * snapshots / snapping * 1000).toFixed(1)} a second`);
const list = () => succeed([executable, "storage", "volume", "list", "p"], { env: daemon.environment });
say("list by lido", `${(await median(list)).toFixed(0)} ms`);
say("list by the real lxc", `${(await median(() => daemon.lxc("storage", "volume", "list", "p"))).toFixed(0)} ms`);
say("memory of the daemon", `${memory(daemon.pid).toFixed(1)} MiB`);
say(
  "start-up, until it is ready",
  `${
    (await median(async () => {
      await daemon.terminate();
      await daemon.up();
    })).toFixed(0)
  } ms`,
);
say("memory of the daemon after a start", `${memory(daemon.pid).toFixed(1)} MiB`);
