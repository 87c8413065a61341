/** Runs the tests that need device-mapper or ZFS in the guest, each driver on its own machine and one machine per processor, and sums up. `npm run
 * test:vm` calls this after its set-up.
 *   run.ts [WORD...]     the plans whose name has one of the words; all without words
 * Exit code 3: this host cannot have the guest, for the printed reason; nothing was tested.
 * $LIDO_VM_LIMIT_S: limit in seconds (2100). Plans that do not fit are not started; a plan that has not ended by then counts as failed. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import process from "node:process";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { madeImage } from "../support/image.ts";
import { type CutOffPlan, cutOffs, runCutOff } from "./cut_off.ts";
import { NoGuest, prepare } from "./guest.ts";
import { Disks, type Kind, Machine } from "./machine.ts";
import { type Plan, plans } from "./plans.ts";

const limitS = Number(process.env.LIDO_VM_LIMIT_S ?? 2100);
const started = performance.now();
const leftMs = () => Math.max(0, limitS * 1000 - (performance.now() - started));
/** Relative to a plain host; generous, since another emulator runs beside it on the same cores. */
const slowness: Record<Kind, number> = { uml: 6, qemu: 10 };
const memoryMiB: Record<Kind, number> = { uml: 1536, qemu: 2048 };

interface Sum {
  passed: number;
  failed: number;
  skipped: number;
}

/** A plan's bash script. Lines that begin with "@@" tell the reader on the host which plan runs. */
function script(plan: Plan): string {
  const words = Object.entries(plan.environment).map(([name, value]) => `${name}=${quote(value)}`);
  return `
echo "@@ ${plan.name}"
left=$((deadline - $(date +%s)))
if [ $left -lt ${plan.seconds} ]; then
  echo "  Left out: $left s are left of the limit, and it takes some ${plan.seconds}"
  echo "1 skipped:"
  echo "0 passed, 0 failed"
else
  env ${words.join(" ")} node_modules/.bin/deno run -A --no-check tests/run.ts ${plan.words.map(quote).join(" ")}
fi
`;
}

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** Leftovers of tests in the kernel or on a disk; compared before and after the tests. */
const begin = `
set -u
state() {
  findmnt -rno TARGET,SOURCE
  losetup -lnO NAME,BACK-FILE
  lvs --noheadings -o vg_name,lv_name 2>/dev/null
  pvs --noheadings -o pv_name 2>/dev/null
  dmsetup ls 2>/dev/null | grep -v '^No devices'
  [ ! -e /sys/module/zfs ] || { zpool list -H -o name; zfs list -H -o name; }
}
mkfs.ext4 -qF -O ^has_journal "$D1"
mount -o noatime "$D1" /scratch
mkdir /scratch/tmp
export TMPDIR=/scratch/tmp DENO_DIR=/scratch/deno NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
cd /src
state >/scratch/before
`;
const end = `
echo "@@ what is left in the guest"
state | grep -vxFf /scratch/before >/scratch/left
sed 's/^ */  FAILED left behind: /' /scratch/left
lines=$(wc -l </scratch/left)
echo "$((lines == 0)) passed, $lines failed"
`;

interface Lane {
  readonly name: string;
  readonly kind: Kind;
  readonly plans: readonly Plan[];
  readonly cutOffs: readonly CutOffPlan[];
}

/** The plans of one machine, one after the other: all of one driver. */
function lanesOf(chosen: readonly Plan[], cut: readonly CutOffPlan[]): Lane[] {
  const keys = new Map([...chosen, ...cut].map(({ driver, kind }) => [`${driver} ${kind}`, { driver, kind }]));
  return [...keys.values()].map(({ driver, kind }) => {
    const isHere = (one: { driver: string; kind: Kind }) => one.driver === driver && one.kind === kind;
    return { name: driver, kind, plans: chosen.filter(isHere), cutOffs: cut.filter(isHere) };
  });
}

async function runLane(lane: Lane, guest: string): Promise<Sum> {
  const sum = await runPlans(lane, guest);
  const print = (line: string) => console.log(`[${lane.name}] ${line}`);
  for (const plan of lane.cutOffs) {
    const { passed, failed } = await runCutOff(plan, { guest, leftMs, print });
    sum.passed += passed;
    sum.failed += failed;
  }
  return sum;
}

async function runPlans({ name: lane, kind, plans: chosen }: Lane, guest: string): Promise<Sum> {
  const sum: Sum = { passed: 0, failed: 0, skipped: 0 };
  if (chosen.length === 0) return sum;
  const done: string[] = [];
  let current = "";
  let isLeftOut = false;
  let rest = "";
  const onLine = (line: string) => {
    if (line.startsWith("@@ ")) {
      current = line.slice(3);
      isLeftOut = false;
      line = `${current}:`;
    }
    console.log(`[${lane}] ${line}`);
    if (line.startsWith("  Left out: ")) isLeftOut = true;
    const total = /^(\d+) passed, (\d+) failed$/.exec(line);
    const skips = /^(\d+) skipped:$/.exec(line);
    if (skips) sum.skipped += Number(skips[1]);
    if (!total) return;
    sum.passed += Number(total[1]);
    sum.failed += Number(total[2]);
    if (!isLeftOut && total[1] === "0" && total[2] === "0") {
      // The guest has all that its tests need, so this is a word that names no suite, or a module that does not load.
      sum.failed++;
      console.log(`[${lane}]   FAILED ${current}: it tested nothing`);
    }
    done.push(current);
  };
  await using disks = new Disks();
  await using machine = new Machine({
    kind,
    guest,
    disks: [24, 4, 4].map((sizeGiB) => disks.add(sizeGiB)),
    memoryMiB: memoryMiB[kind],
    command: [
      begin,
      `deadline=${Math.floor((Date.now() + leftMs()) / 1000)}`,
      `export LIDO_TEST_SLOWNESS=${slowness[kind]}`,
      ...chosen.map(script),
      end,
    ].join("\n"),
    onOutput: (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      lines.forEach(onLine);
    },
  });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    machine.kill();
  }, leftMs());
  const code = await machine.ended;
  clearTimeout(timer);
  const missing = [...chosen.map(({ name }) => name), "what is left in the guest"].filter((name) =>
    !done.includes(name)
  );
  for (const name of missing) {
    console.log(
      `[${lane}]   FAILED ${name}: ${isLate ? `not done after ${limitS} s in all` : "the guest ended before it"}`,
    );
  }
  sum.failed += missing.length;
  if (code === undefined && !isLate) console.log(machine.console);
  return sum;
}

function availableMiB(): number {
  return Math.floor(Number(/MemAvailable:\s+(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))![1]) / 1024);
}

async function main(words: readonly string[]): Promise<number> {
  const chosen = <One extends { name: string; driver: string }>(all: readonly One[]) =>
    all.filter(({ name, driver }) =>
      driverKinds.has(driver) && (words.length === 0 || words.some((word) => name.includes(word)))
    );
  const without = [...plans, ...cutOffs].filter(({ driver }) => !driverKinds.has(driver));
  for (const { name, driver } of without) console.log(`Left out: ${name}: there is no driver "${driver}"`);
  const others = [...plans, ...cutOffs].filter((one) => ![...chosen(plans), ...chosen(cutOffs)].includes(one));
  if (others.length > 0) console.log(`Not in this run, by its words: ${others.map(({ name }) => name).join("; ")}`);
  const lanes = lanesOf(chosen(plans), chosen(cutOffs));
  const atOnce = availableParallelism();
  const largest = lanes.map(({ kind }) => memoryMiB[kind]).sort((left, right) => right - left).slice(0, atOnce);
  const neededMiB = largest.reduce((total, one) => total + one, 1024);
  let guest: string;
  try {
    if (availableMiB() < neededMiB) {
      throw new NoGuest(`it needs ${neededMiB} MiB of memory, ${availableMiB()} are free`);
    }
    guest = await prepare();
  } catch (error) {
    if (!(error instanceof NoGuest)) throw error;
    console.log(`The tests in the guest are left out: ${error.message}`);
    return 3;
  }
  for (const name of new Set(chosen(plans).flatMap(({ images = [] }) => images))) await madeImage(name);
  const sums: Sum[] = [];
  const waiting = [...lanes];
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (let lane = waiting.shift(); lane; lane = waiting.shift()) sums.push(await runLane(lane, guest));
  }));
  const total = (key: keyof Sum) => sums.reduce((all, sum) => all + sum[key], 0);
  const skips = total("skipped") + without.length > 0 ? `, ${total("skipped") + without.length} skipped` : "";
  console.log(`\n${total("passed")} passed, ${total("failed")} failed${skips}`);
  return total("failed") > 0 ? 1 : 0;
}

process.exit(await main(process.argv.slice(2)));
