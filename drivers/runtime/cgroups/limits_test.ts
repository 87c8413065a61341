import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CgroupLimits, parseCpus } from "./limits.ts";
import type { Limits } from "../runtime.ts";

const none: Limits = { swap: true, hugepages: {} };

/** A directory with a hierarchy's files that hold limits. */
class Tree implements Disposable {
  readonly root = mkdtempSync(join(tmpdir(), "lido-limits-"));
  readonly #isUnified: boolean;

  constructor(isUnified: boolean, files: Readonly<Record<string, string>>) {
    this.#isUnified = isUnified;
    for (const [path, text] of Object.entries(files)) this.write(path, text);
  }

  write(path: string, text: string): void {
    mkdirSync(join(this.root, path, ".."), { recursive: true });
    writeFileSync(join(this.root, path), text);
  }

  read(...paths: string[]): string[] {
    return paths.map((path) => readFileSync(join(this.root, path), "utf8").trim());
  }

  apply(limits: Partial<Limits>, container = "c1"): void {
    new CgroupLimits({ root: this.root, path: `/lido/${container}`, isUnified: this.#isUnified })
      .apply({ ...none, ...limits });
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true });
  }
}

const unifiedFiles = (name: string) => ({
  [`lido/${name}/memory.max`]: "max",
  [`lido/${name}/memory.low`]: "0",
  [`lido/${name}/memory.high`]: "max",
  [`lido/${name}/memory.current`]: "300000",
  [`lido/${name}/memory.swap.max`]: "max",
  [`lido/${name}/pids.max`]: "max",
  [`lido/${name}/cpuset.cpus`]: "",
  [`lido/${name}/cpu.weight`]: "100",
  [`lido/${name}/cpu.max`]: "max 100000",
  [`lido/${name}/hugetlb.2MB.max`]: "max",
  [`lido/${name}/io.weight`]: "default 100",
});

Deno.test("limits in a v2 hierarchy: set, changed and taken back", () => {
  using tree = new Tree(true, { "lido/cpuset.cpus.effective": "0-3", ...unifiedFiles("c1") });
  const shown = () =>
    tree.read(...["memory.max", "memory.low", "memory.swap.max", "pids.max", "cpuset.cpus", "cpu.weight", "cpu.max"]
      .map((name) => `lido/c1/${name}`));
  const unlimited = ["max", "0", "max", "max", "", "100", "max 100000"];
  tree.apply({});
  assert.deepEqual(shown(), unlimited);
  tree.apply({
    memory: { bytes: 104857600n, enforce: "hard" },
    swap: false,
    processes: 50,
    cpus: "1-2,9",
    cpuAllowance: { kind: "time", quotaMs: 20, periodMs: 50 },
    cpuPriority: 5,
    hugepages: { "2MB": 4194304n },
    diskPriority: 3,
  });
  assert.deepEqual(shown(), ["104857600", "94371840", "0", "50", "1-2", "95", "20000 50000"]);
  assert.deepEqual(tree.read("lido/c1/hugetlb.2MB.max", "lido/c1/io.weight"), ["4194304", "default 300"]);
  tree.apply({
    memory: { bytes: 104857600n, enforce: "soft" },
    cpuAllowance: { kind: "share", percent: 50 },
    processes: -1,
  });
  // The kernel refuses to empty the set of a cgroup that has processes.
  assert.deepEqual(shown(), ["max", "104857600", "max", "max", "0-3", "50", "max 100000"]);
  tree.apply({});
  assert.deepEqual(shown(), unlimited.with(4, "0-3"));
  assert.deepEqual(tree.read("lido/c1/hugetlb.2MB.max"), ["max"]);
});

Deno.test("v2 would kill: a limit below what is in use and cannot be freed is refused, and nothing has changed", () => {
  using tree = new Tree(true, { "lido/cpuset.cpus.effective": "0-3", ...unifiedFiles("c1") });
  assert.throws(
    () => tree.apply({ memory: { bytes: 102400n, enforce: "hard" }, processes: 3 }),
    /limits\.memory: 100\.00KiB are less than the 292\.97KiB that are in use and cannot be freed/,
  );
  assert.deepEqual(tree.read("lido/c1/memory.max", "lido/c1/memory.high", "lido/c1/pids.max"), ["max", "max", "max"]);
});

Deno.test("a limit that cannot be had is refused by its key, and what was written before is taken back", () => {
  const { ["lido/c1/io.weight"]: _, ...files } = unifiedFiles("c1");
  using tree = new Tree(true, { "lido/cpuset.cpus.effective": "0-3", ...files });
  const refused = (limits: Partial<Limits>, pattern: RegExp) => {
    assert.throws(() => tree.apply({ processes: 7, memory: { bytes: 1048576n, enforce: "hard" }, ...limits }), pattern);
    assert.deepEqual(tree.read("lido/c1/pids.max", "lido/c1/memory.max", "lido/c1/memory.low"), ["max", "max", "0"]);
  };
  refused({ diskPriority: 3 }, /limits\.disk\.priority as io\.weight cgroup controller is missing/);
  refused({ hugepages: { "1GB": 1073741824n } }, /limits\.hugepages\.1GB as .*missing/);
  refused({ swapPriority: 3 }, /limits\.memory\.swap\.priority as .*missing/);
  refused({ cpus: "5-6" }, /limits\.cpu "5-6": the CPUs 0-3 are there/);
  assert.deepEqual(tree.read("lido/c1/cpuset.cpus"), [""]);
  refused({ cpus: "1", diskPriority: 3 }, /controller is missing/);
  assert.deepEqual(tree.read("lido/c1/cpuset.cpus"), ["0-3"], "all, as a set that the kernel takes");
});

Deno.test("a number of CPUs are those that the fewest others are bound to, and stay the same ones", () => {
  using tree = new Tree(true, {
    "lido/cpuset.cpus.effective": "0-3",
    ...unifiedFiles("c1"),
    ...unifiedFiles("c2"),
    ...unifiedFiles("c3"),
  });
  const chosen = () => tree.read("lido/c1/cpuset.cpus", "lido/c2/cpuset.cpus", "lido/c3/cpuset.cpus");
  tree.apply({ cpus: 2 }, "c1");
  tree.apply({ cpus: 1 }, "c2");
  tree.apply({ cpus: 2 }, "c3");
  assert.deepEqual(chosen(), ["0-1", "2", "0,3"]);
  tree.apply({ cpus: 2 }, "c1");
  assert.deepEqual(chosen(), ["0-1", "2", "0,3"]);
  tree.apply({ cpus: 99 }, "c1");
  assert.deepEqual(chosen(), ["0-3", "2", "0,3"]);
  assert.deepEqual(parseCpus("0-2,5"), [0, 1, 2, 5]);
});

Deno.test("limits in v1 hierarchies: the set of CPUs is filled in from above, memory with swap is limited as without", () => {
  const most = "9223372036854771712";
  using tree = new Tree(false, {
    "memory/lido/memory.swappiness": "10",
    "memory/lido/c1/memory.limit_in_bytes": most,
    "memory/lido/c1/memory.memsw.limit_in_bytes": most,
    "memory/lido/c1/memory.soft_limit_in_bytes": most,
    "memory/lido/c1/memory.swappiness": "10",
    "pids/lido/c1/pids.max": "max",
    "cpuset/cpuset.cpus": "0-1",
    "cpuset/cpuset.mems": "0",
    "cpuset/lido/cpuset.cpus": "",
    "cpuset/lido/cpuset.mems": "",
    "cpuset/lido/c1/cpuset.cpus": "",
    "cpuset/lido/c1/cpuset.mems": "",
    "cpu/lido/c1/cpu.shares": "1024",
    "cpu/lido/c1/cpu.cfs_period_us": "100000",
    "cpu/lido/c1/cpu.cfs_quota_us": "-1",
    "blkio/lido/c1/blkio.bfq.weight": "100",
  });
  const shown = (controller: string, ...names: string[]) =>
    tree.read(...names.map((name) => `${controller}/lido/c1/${controller}.${name}`));
  const memory = ["limit_in_bytes", "memsw.limit_in_bytes", "soft_limit_in_bytes", "swappiness"];
  tree.apply({ cpus: 1, memory: { bytes: 104857600n, enforce: "hard" }, diskPriority: 0 });
  assert.deepEqual(shown("memory", ...memory), ["104857600", "104857600", "94371840", "10"]);
  assert.deepEqual(shown("cpuset", "cpus", "mems"), ["0", "0"]);
  assert.deepEqual(shown("blkio", "bfq.weight"), ["10"]);
  tree.apply({
    swap: false,
    memory: { bytes: 104857600n, enforce: "hard" },
    cpuAllowance: { kind: "share", percent: 50 },
  });
  assert.deepEqual(shown("memory", ...memory), ["104857600", "-1", "94371840", "0"]);
  assert.deepEqual(shown("cpu", "shares", "cfs_quota_us"), ["512", "-1"]);
  tree.apply({ swapPriority: 3, cpuAllowance: { kind: "time", quotaMs: 5, periodMs: 10 }, cpuPriority: 0 });
  assert.deepEqual(shown("memory", ...memory), ["-1", "-1", "-1", "67"]);
  assert.deepEqual(shown("cpu", "shares", "cfs_quota_us", "cfs_period_us"), ["1014", "5000", "10000"]);
  tree.apply({});
  assert.deepEqual(shown("cpu", "shares", "cfs_quota_us", "cfs_period_us"), ["1024", "-1", "100000"]);
  assert.deepEqual(shown("cpuset", "cpus"), ["0-1"]);
  assert.deepEqual(shown("memory", "swappiness"), ["10"]);
});
