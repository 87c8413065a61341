/** Whether long work on one volume delays verbs on another: times of changes of a volume without other work, during the export of a large volume, and
 * during the deletion of a volume with many files.
 *   Environment: GIB (10) of the export, FILES (200000), POOL (dir) */
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Daemon } from "../support/daemon.ts";
import { RawClient } from "../support/raw.ts";

const gibibytes = Number(process.env.GIB ?? 10), files = Number(process.env.FILES ?? 200_000);
const driver = process.env.POOL ?? "dir";
const filesEach = 1000, hourMs = 3_600_000;
const say = (what: string, text: string) => console.log(what.padEnd(50) + text.padStart(40));

await using daemon = await Daemon.start();
await daemon.ok("storage", "create", "p", driver, ...(driver === "dir" ? [] : [`size=${gibibytes + 4}GiB`]));
for (const name of ["big", "files", "other"]) await daemon.ok("storage", "volume", "create", "p", name);
const within = (name: string) => join(daemon.directory, "storage-pools/p/custom", `default_${name}`);
const random = crypto.getRandomValues(new Uint8Array(65536));
const mebibyte = Buffer.concat(Array.from({ length: 16 }, () => random));
const file = openSync(join(within("big"), "data"), "w");
for (let count = 0; count < gibibytes * 1024; count++) writeSync(file, mebibyte);
closeSync(file);
for (let index = 0; index < files; index++) {
  const directory = join(within("files"), `d${Math.floor(index / filesEach)}`);
  if (index % filesEach === 0) mkdirSync(directory);
  writeFileSync(join(directory, `f${index}`), "");
}

const raw = new RawClient(daemon.directory);
const path = "/1.0/storage-pools/p/volumes/custom/other";
let round = 0;
/** Each verb needs a lock of its volume, a transaction, and a record on disk. */
const verbs: Readonly<Record<string, () => Promise<unknown>>> = {
  "set a key": () => raw.ask("PATCH", path, { config: { "user.round": String(round++) } }),
  "create and delete": async () => {
    await raw.ask("POST", "/1.0/storage-pools/p/volumes/custom", { name: "passing" });
    await raw.ask("DELETE", "/1.0/storage-pools/p/volumes/custom/passing");
  },
  "profile": () => raw.ask("PUT", "/1.0/profiles/default", { description: String(round++), config: {}, devices: {} }),
};

/** Measures until `work` has ended, or for a fixed number of rounds. */
async function measure(what: string, work?: () => Promise<unknown>): Promise<void> {
  let isOver = false;
  const started = performance.now();
  const working = work?.().finally(() => isOver = true);
  const times = new Map(Object.keys(verbs).map((verb) => [verb, [] as number[]]));
  for (let count = 0; working ? !isOver : count < 20; count++) {
    for (const [verb, run] of Object.entries(verbs)) {
      const before = performance.now();
      await run();
      times.get(verb)!.push(performance.now() - before);
    }
  }
  await working;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  for (const [verb, all] of times) {
    const sorted = all.toSorted((a, b) => a - b);
    const [median, most] = [sorted[Math.floor(sorted.length / 2)], sorted.at(-1)].map((ms) => `${ms?.toFixed(1)} ms`);
    say(`${what} (${seconds} s): ${verb}`, `median ${median}, most ${most}, ${all.length} times`);
  }
}

const long = async (...argv: string[]) => {
  const { code, err } = await daemon.lido(argv, { timeoutMs: hourMs });
  if (code !== 0) throw new Error(err);
};
await measure("nothing else");
await measure(
  `export of ${gibibytes} GiB`,
  () => long("storage", "volume", "export", "p", "big", `${daemon.directory}.tar`, "--compression", "none"),
);
await long("storage", "volume", "delete", "p", "big");
await measure(`deletion of ${files} files`, () => long("storage", "volume", "delete", "p", "files"));

rmSync(`${daemon.directory}.tar`, { force: true });
