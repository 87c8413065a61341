/** Runs the suites one after the other, each with a time limit, and sums up. `npm test` calls this after its set-up. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { slowness } from "./support/slowness.ts";
import { describe, emptyCgroups, findTraces, kernelObjects, sweep } from "./support/traces.ts";

interface Suite {
  readonly name: string;
  readonly argv: readonly string[];
  /** After this time the suite is stopped and counts as failed. Several times what it takes on two slow cores. */
  readonly limitS: number;
  /** Whether it takes minutes: runs only if named on the command line, or with "all". */
  readonly isSlow?: boolean;
  readonly environment?: Readonly<Record<string, string>>;
}

const deno = "node_modules/.bin/deno";
const roots = ["mod.ts", "api", "cli", "drivers", "server", "tests", "examples"].filter(exists);

// Types are checked once, by the suite "types": a check in each suite would take longer than its tests.
const test = (...paths: string[]) => [deno, "test", "-A", "--no-check", "--quiet", ...paths];

const suites: readonly Suite[] = [
  { name: "types", argv: [deno, "check", "-q", ...roots], limitS: 180 },
  { name: "lint", argv: [deno, "lint", "-q", ...roots], limitS: 60 },
  { name: "format", argv: [deno, "fmt", "-q", "--check", ...roots, "deno.json"], limitS: 60 },
  { name: "house", argv: test("tests/house_test.ts", "tests/docs_test.ts"), limitS: 60 },
  { name: "unit", argv: test("api", "cli", "drivers", "server"), limitS: 480 },
  { name: "api", argv: test("tests/api"), limitS: 240 },
  { name: "conformance", argv: test("tests/conformance"), limitS: 240 },
  { name: "property", argv: test("tests/property"), limitS: 300 },
  { name: "system", argv: test("tests/system"), limitS: 1200 },
  { name: "hostile", argv: test("tests/hostile"), limitS: 900 },
  // The long run of the generated requests: half an hour.
  {
    name: "requests",
    argv: test("tests/hostile/requests_test.ts"),
    limitS: 5400,
    isSlow: true,
    environment: { LIDO_REQUESTS: "50000" },
  },
  {
    name: "archives",
    argv: test("tests/property/archives_test.ts"),
    limitS: 1800,
    isSlow: true,
    environment: { LIDO_ARCHIVES: "20000" },
  },
  // Boots images of real systems. Making Debian 12 takes a minute, the first time.
  { name: "boot", argv: test("tests/boot/boot_test.ts"), limitS: 600 },
  { name: "boot-all", argv: test("tests/boot/all_test.ts", "tests/boot/podman_test.ts"), limitS: 3600, isSlow: true },
  { name: "clients", argv: test("tests/clients"), limitS: 400 },
  { name: "soak", argv: test("tests/soak/exec_test.ts"), limitS: 480 },
  {
    name: "soak-exec",
    argv: test("tests/soak/exec_test.ts"),
    limitS: 1800,
    isSlow: true,
    environment: { LIDO_SOAK_COMMANDS: "6000" },
  },
  { name: "soak-mounts", argv: test("tests/soak/mounts_test.ts"), limitS: 1800, isSlow: true },
  // Only every fifth point of code that has passed with all of them; "crash-each" tests each point. With each point the default run would take more
  // than twenty minutes.
  {
    name: "crash",
    argv: test(...["cases", "storage", "instances", "sharing"].map((name) => `tests/crash/${name}_test.ts`)),
    limitS: 1500,
    environment: { LIDO_CRASH_EVERY: "5" },
  },
  { name: "crash-each", argv: test("tests/crash"), limitS: 3600, isSlow: true },
  {
    name: "crash-all",
    argv: test("tests/crash"),
    limitS: 7200,
    isSlow: true,
    environment: { LIDO_CRASH_ALL: "1" },
  },
];

function exists(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
}

function hasTests(path: string): boolean {
  if (!exists(path)) return false;
  if (statSync(path).isFile()) return true;
  return readdirSync(path, { recursive: true }).some((name) => String(name).endsWith("_test.ts"));
}

interface Result {
  readonly passed: number;
  readonly failed: readonly string[];
  readonly skipped: readonly string[];
  readonly output: string;
}

/** Runs a suite in its own process group, so that its limit also ends its children. */
function run(argv: readonly string[], limitS: number, environment: Record<string, string>) {
  return new Promise<{ code: number; late: boolean; output: string }>((resolve, reject) => {
    const child = spawn(argv[0]!, argv.slice(1), {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    let output = "";
    let late = false;
    child.stdout.on("data", (chunk) => output += chunk);
    child.stderr.on("data", (chunk) => output += chunk);
    const timer = setTimeout(() => {
      late = true;
      process.kill(-child.pid!, "SIGKILL");
    }, limitS * 1000);
    child.on("error", reject);
    // "exit", not "close": a daemon left behind by a failed test would keep the pipes open.
    child.on("exit", (code) => {
      clearTimeout(timer);
      setTimeout(() => resolve({ code: code ?? 255, late, output }), 50);
    });
  });
}

const unescape = (text: string) =>
  text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&#x27;", "'")
    .replaceAll("&#39;", "'").replaceAll("&amp;", "&");

/** Parses the report of `deno test --junit-path`. */
function readReport(xml: string): Omit<Result, "output"> {
  const cases = [...xml.matchAll(/<testcase name="([^"]*)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g)];
  const named = cases.map(([, name, body = ""]) => ({ name: unescape(name!), body }));
  const failed = named.filter(({ body }) => /<(failure|error)\b/.test(body));
  const skipped = named.filter(({ body }) => body.includes("<skipped"));
  return {
    passed: named.length - failed.length - skipped.length,
    failed: failed.map(({ name }) => name),
    skipped: skipped.map(({ name }) => name),
  };
}

async function runSuite(suite: Suite, directory: string): Promise<Result> {
  const report = join(directory, "report.xml");
  const isTest = suite.argv[1] === "test";
  const argv = isTest ? [...suite.argv.slice(0, 4), `--junit-path=${report}`, ...suite.argv.slice(4)] : suite.argv;
  const work = join(directory, "tmp");
  const { code, late, output } = await run(argv, suite.limitS * slowness, {
    TMPDIR: work,
    NO_COLOR: "1",
    ...suite.environment,
  });
  if (late) return { passed: 0, failed: [`not done after ${suite.limitS * slowness} s`], skipped: [], output };
  if (!isTest || !exists(report)) {
    return { passed: code === 0 ? 1 : 0, failed: code === 0 ? [] : [`ended with ${code}`], skipped: [], output };
  }
  const result = readReport(readFileSync(report, "utf8"));
  rmSync(report);
  // A module that does not load, or a resource that leaks after the last test, fails without a test case.
  const failed = code !== 0 && result.failed.length === 0 ? [`ended with ${code}`] : result.failed;
  return { ...result, failed, output };
}

const whatIsThere = () => ({ cgroups: emptyCgroups(), objects: kernelObjects() });

/** Lists leftovers of a suite on the host, in and below its temporary directory. */
async function leaks(work: string, before: ReturnType<typeof whatIsThere>): Promise<string[]> {
  const daemons = readdirSync(work).map((name) => join(work, name));
  const left = [
    ...describe(findTraces(work, daemons)),
    ...emptyCgroups().filter((path) => !before.cgroups.includes(path)).map((path) => `cgroup ${path}`),
    ...kernelObjects().filter((line) => !before.objects.includes(line)),
    ...daemons.map((path) => `directory ${path}`),
  ];
  for (const path of daemons) await sweep(path);
  return [...new Set(left)];
}

async function main(words: readonly string[]): Promise<number> {
  if (words.includes("list")) {
    for (const { name, isSlow } of suites) console.log(isSlow ? `${name} (slow)` : name);
    return 0;
  }
  const files = words.filter((word) => word.endsWith("_test.ts") && exists(word));
  const unknown = words.find((word) =>
    word !== "all" && !files.includes(word) && !suites.some(({ name }) => name === word)
  );
  if (unknown !== undefined) {
    console.error(`Error: Unknown suite "${unknown}": ${suites.map(({ name }) => name).join(", ")}`);
    return 1;
  }
  const chosen = [
    ...suites.filter(({ name, isSlow }) =>
      words.includes(name) || words.includes("all") || (words.length === 0 && !isSlow)
    ),
    ...files.map((path): Suite => ({ name: path, argv: test(path), limitS: 900 })),
  ];
  // One temporary directory for all tests: anything in it at the end is a leftover.
  const directory = mkdtempSync(join(tmpdir(), "lido-test-"));
  const work = join(directory, "tmp");
  let passed = 0;
  let failed = 0;
  const skipped: string[] = [];
  try {
    for (const suite of chosen) {
      const paths = suite.argv[1] === "test" ? suite.argv.slice(5) : [];
      if (paths.length > 0 && !paths.some(hasTests)) {
        console.log(`${suite.name}: no tests`);
        continue;
      }
      mkdirSync(work, { recursive: true });
      const before = whatIsThere();
      const started = performance.now();
      const result = await runSuite(suite, directory);
      const left = await leaks(work, before);
      const failures = [...result.failed, ...left.map((line) => `left behind: ${line}`)];
      passed += result.passed;
      failed += failures.length;
      skipped.push(...result.skipped.map((name) => `${suite.name}: ${name}`));
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      const skips = result.skipped.length > 0 ? `, ${result.skipped.length} skipped` : "";
      console.log(`${suite.name}: ${result.passed} passed, ${failures.length} failed${skips} (${seconds} s)`);
      if (failures.length > 0) {
        console.log(result.output.replace(/^/gm, "    "));
        for (const line of failures) console.log(`  FAILED ${suite.name}: ${line}`);
      }
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  if (skipped.length > 0) {
    console.log(`\n${skipped.length} skipped:`);
    for (const line of skipped) console.log(`  ${line}`);
  }
  console.log(`\n${passed} passed, ${failed} failed`);
  return failed > 0 ? 1 : 0;
}

process.exit(await main(process.argv.slice(2)));
