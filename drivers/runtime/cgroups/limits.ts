/** Limits of a container, written into its cgroup before its first process starts, and again whenever they change.
 *
 * The limits are converted to the values of v1 or v2 files. A file that already has its value is not written, so a daemon that adopts containers
 * can apply the same limits again. All or nothing: when one file is refused, the others get their former values. Each written value is read back.
 * The meaning of each key is LXD's. @see cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel */

import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { showUnequalBytes } from "../../../api/size.ts";
import type { Limits } from "../runtime.ts";

/** A file that holds a limit. */
interface LimitFile {
  /** The configuration key that sets it, for error messages. */
  readonly key: string;
  readonly controller: string;
  /** Possible names; the first that exists is used. */
  readonly names: readonly string[];
  readonly value: string;
  /** Whether `value` is a new cgroup's default: then a missing controller is no error. */
  readonly isDefault: boolean;
  /** Written to roll back when the former value cannot be written. */
  readonly initial?: string;
}

const unlimitedV1 = "-1";
/** From this value on the kernel means "no limit"; v1 shows the number of all pages. */
const unlimitedFrom = 1n << 62n;
const pageBytes = 4096n;
const hugepageSizes = ["64KB", "1MB", "2MB", "1GB"] as const;
const priorityMax = 10;
const defaultPeriodUs = 100_000;

export class CgroupLimits {
  readonly #root: string;
  readonly #path: string;
  readonly #isUnified: boolean;

  /** @param options.root Mount point of the hierarchies. @param options.path The container's cgroup, from a hierarchy's root. */
  constructor(options: { root: string; path: string; isUnified: boolean }) {
    this.#root = options.root;
    this.#path = options.path;
    this.#isUnified = options.isUnified;
  }

  /** @throws {LidoError} bad_request with the key and the reason; then nothing has changed. */
  apply(limits: Limits): void {
    const files = this.#isUnified ? this.#unified(limits) : this.#legacy(limits);
    using revert = new DisposableStack();
    this.#freeMemory(limits);
    for (const file of this.#inOrder(files)) this.#write(file, revert);
    revert.move();
  }

  #legacy(limits: Limits): LimitFile[] {
    const { memory } = limits;
    const { limit, withSwap } = memoryBytesV1(limits);
    const hard = String(limit ?? unlimitedV1);
    const swap = String(withSwap ?? unlimitedV1);
    const file = (key: string, controller: string, name: string, value: string, initial: string): LimitFile => ({
      key,
      controller,
      names: [name],
      value,
      isDefault: value === initial,
    });
    const { shares, quotaUs, periodUs } = cpuTime(limits, 1024);
    const inherited = read(join(dirname(this.#file("memory", "")), "memory.swappiness")) || "60";
    return [
      file("limits.memory", "memory", "memory.limit_in_bytes", hard, unlimitedV1),
      // Memory and swap together. The file is missing on a kernel that does not count swap.
      { ...file("limits.memory.swap", "memory", "memory.memsw.limit_in_bytes", swap, unlimitedV1), isDefault: true },
      file("limits.memory", "memory", "memory.soft_limit_in_bytes", softLimit(memory) ?? unlimitedV1, unlimitedV1),
      file("limits.memory.swap.priority", "memory", "memory.swappiness", swappiness(limits) ?? inherited, inherited),
      file("limits.processes", "pids", "pids.max", processes(limits), "max"),
      ...this.#cpus(limits),
      file("limits.cpu.allowance", "cpu", "cpu.shares", String(shares), "1024"),
      file("limits.cpu.allowance", "cpu", "cpu.cfs_period_us", String(periodUs), String(defaultPeriodUs)),
      file("limits.cpu.allowance", "cpu", "cpu.cfs_quota_us", String(quotaUs ?? -1), "-1"),
      ...hugepageSizes.map((size) =>
        file(
          `limits.hugepages.${size}`,
          "hugetlb",
          `hugetlb.${size}.limit_in_bytes`,
          String(limits.hugepages[size] ?? unlimitedV1),
          unlimitedV1,
        )
      ),
      {
        ...file("limits.disk.priority", "blkio", "", diskWeight(limits) ?? "500", "500"),
        names: ["blkio.weight", "blkio.bfq.weight"],
        isDefault: limits.diskPriority === undefined,
      },
    ];
  }

  #unified(limits: Limits): LimitFile[] {
    const { memory } = limits;
    const isHard = memory?.enforce === "hard";
    const file = (key: string, name: string, value: string, initial: string): LimitFile => ({
      key,
      controller: "",
      names: [name],
      value,
      isDefault: value === initial,
    });
    const { shares, quotaUs, periodUs } = cpuTime(limits, 100);
    return [
      file("limits.memory", "memory.max", isHard ? String(memory!.bytes) : "max", "max"),
      file("limits.memory", "memory.low", softLimit(memory) ?? "0", "0"),
      file("limits.memory.swap", "memory.swap.max", limits.swap ? "max" : "0", "max"),
      // v2 has no such file: setting the key is an error.
      ...(limits.swapPriority === undefined
        ? []
        : [file("limits.memory.swap.priority", "memory.swappiness", swappiness(limits)!, "")]),
      file("limits.processes", "pids.max", processes(limits), "max"),
      ...this.#cpus(limits),
      file("limits.cpu.allowance", "cpu.weight", String(shares), "100"),
      file("limits.cpu.allowance", "cpu.max", `${quotaUs ?? "max"} ${periodUs}`, `max ${defaultPeriodUs}`),
      ...hugepageSizes.map((size) =>
        file(`limits.hugepages.${size}`, `hugetlb.${size}.max`, String(limits.hugepages[size] ?? "max"), "max")
      ),
      {
        ...file("limits.disk.priority", "", `default ${diskWeight(limits) ?? 100}`, "default 100"),
        names: ["io.weight", "io.bfq.weight"],
        isDefault: limits.diskPriority === undefined,
      },
    ];
  }

  /** The set of CPUs. A number of CPUs means the least used: those that the fewest other containers of this daemon are bound to. A container that
   * already has that many keeps them. */
  #cpus({ cpus }: Limits): LimitFile[] {
    const own = this.#file("cpuset", "cpuset.cpus");
    const file = { key: "limits.cpu", controller: "cpuset", names: ["cpuset.cpus"] };
    if (!existsSync(own)) return cpus === undefined ? [] : [{ ...file, value: "", isDefault: false }];
    const parent = dirname(dirname(own));
    const available = this.#availableCpus(dirname(own));
    const now = parseCpus(read(own));
    let chosen: readonly number[];
    if (cpus === undefined) chosen = available;
    else if (typeof cpus === "number") {
      chosen = now.length === cpus ? now : leastUsed(available, this.#siblings(parent)).slice(0, cpus);
    } else {
      chosen = parseCpus(cpus).filter((cpu) => available.includes(cpu));
      if (chosen.length === 0 && available.length > 0) {
        throw new LidoError(
          "bad_request",
          `Cannot apply limits.cpu "${cpus}": the CPUs ${formatCpus(available)} are there`,
        );
      }
    }
    const isAll = chosen.length === available.length;
    // v2 treats an empty set as all CPUs, but the kernel does not empty the set of a cgroup that has processes. v1 allows no empty set.
    const isUnset = this.#isUnified && now.length === 0;
    const value = isAll && isUnset ? "" : formatCpus([...chosen].sort((a, b) => a - b));
    return [{ ...file, value, isDefault: isAll, ...(isUnset ? { initial: formatCpus(available) } : {}) }];
  }

  /** v1 gives a new cgroup no CPU and no memory node: both are copied from the parent, starting with the daemon's own cgroup. */
  #availableCpus(directory: string): number[] {
    const parent = dirname(directory);
    if (this.#isUnified) return parseCpus(read(join(parent, "cpuset.cpus.effective")));
    for (const one of [parent, directory]) {
      for (const name of ["cpuset.cpus", "cpuset.mems"]) {
        const path = join(one, name);
        if (existsSync(path) && read(path) === "") writeFileSync(path, read(join(dirname(one), name)));
      }
    }
    return parseCpus(read(join(parent, "cpuset.cpus")));
  }

  /** The sets of CPUs that the other containers of this daemon are bound to. */
  #siblings(parent: string): number[][] {
    const own = this.#path.split("/").at(-1);
    return readdirSync(parent, { withFileTypes: true }).filter((entry) => entry.isDirectory() && entry.name !== own)
      .map(({ name }) => parseCpus(read(join(parent, name, "cpuset.cpus"))));
  }

  /** v1 refuses a limit below what cannot be freed. v2 accepts it and kills: there, first try a limit that only reclaims. */
  #freeMemory({ memory }: Limits): void {
    if (!this.#isUnified || memory?.enforce !== "hard") return;
    const high = this.#file("", "memory.high"), now = () => BigInt(read(this.#file("", "memory.current")) || "0");
    if (now() <= memory.bytes) return;
    const before = read(high);
    try {
      writeFileSync(high, String(memory.bytes));
      if (now() > memory.bytes) throw belowUse(memory.bytes, now());
    } finally {
      writeFileSync(high, before);
    }
  }

  /** The limit of memory with swap may never be below the one without: raise the outer one first, lower the inner one first. */
  #inOrder(files: readonly LimitFile[]): LimitFile[] {
    const outer = files.findIndex(({ names }) => names[0] === "memory.memsw.limit_in_bytes");
    if (outer < 0) return [...files];
    const wanted = amount(files[outer]!.value), now = amount(read(this.#file("memory", "memory.memsw.limit_in_bytes")));
    return wanted > now ? [files[outer]!, ...files.filter((_, index) => index !== outer)] : [...files];
  }

  #write({ key, controller, names, value, isDefault, initial }: LimitFile, revert: DisposableStack): void {
    const path = names.map((name) => this.#file(controller, name)).find((candidate) => existsSync(candidate));
    if (path === undefined) {
      if (isDefault) return;
      throw new LidoError("bad_request", `Cannot apply ${key} as ${names[0]} cgroup controller is missing`);
    }
    const before = read(path);
    if (isSame(before, value)) return;
    try {
      writeFileSync(path, `${value}\n`);
    } catch (error) {
      throw this.#refusal(error as NodeJS.ErrnoException, { key, value });
    }
    revert.defer(() => writeFileSync(path, `${initial ?? asWritten(before)}\n`));
    const after = read(path);
    if (!isSame(after, value) && !isRounded(after, value)) {
      throw new LidoError(
        "internal",
        `Cannot apply ${key}: ${names[0]} is "${after}" after "${value}" was written to it`,
      );
    }
  }

  #refusal(error: NodeJS.ErrnoException, { key, value }: { key: string; value: string }): LidoError {
    if (error.code === "EBUSY" && key.startsWith("limits.memory")) {
      return belowUse(BigInt(value), BigInt(read(this.#file("memory", "memory.usage_in_bytes")) || "0"));
    }
    return new LidoError(
      "bad_request",
      `Cannot apply ${key}: the kernel refuses "${value}" (${error.code ?? error.message})`,
    );
  }

  #file(controller: string, name: string): string {
    return join(this.#root, this.#isUnified ? "" : controller, this.#path, name);
  }
}

/** @returns Limits of memory alone, and of memory and swap together; absent for no limit. */
export function memoryBytesV1({ memory, swap }: Limits): { readonly limit?: bigint; readonly withSwap?: bigint } {
  if (memory?.enforce !== "hard") return {};
  return { limit: memory.bytes, ...(swap ? { withSwap: memory.bytes } : {}) };
}

function belowUse(bytes: bigint, used: bigint): LidoError {
  const [limit, usage] = showUnequalBytes(bytes, used);
  return new LidoError(
    "bad_request",
    `Cannot apply limits.memory: ${limit} are less than the ${usage} that are in use and cannot be freed`,
  );
}

/** What the container keeps when the host is short of memory: all of a soft limit, nine tenths of a hard one. */
function softLimit(memory: Limits["memory"]): string | undefined {
  if (!memory) return undefined;
  const bytes = memory.enforce === "soft" ? memory.bytes : memory.bytes * 9n / 10n;
  return String(bytes / pageBytes * pageBytes);
}

/** As LXD: 60, the kernel's default, is the highest priority. @returns undefined for the host's value. */
function swappiness({ swap, swapPriority }: Limits): string | undefined {
  if (!swap) return "0";
  return swapPriority === undefined ? undefined : String(60 + priorityMax - swapPriority);
}

function processes({ processes }: Limits): string {
  return processes === undefined || processes < 0 ? "max" : String(processes);
}

function diskWeight({ diskPriority }: Limits): string | undefined {
  if (diskPriority === undefined) return undefined;
  return String(diskPriority === 0 ? 10 : diskPriority * 100);
}

/** The share of CPU time under contention, and the quota of each period. @param whole Shares of a container without limits. */
function cpuTime(
  { cpuAllowance, cpuPriority = priorityMax }: Limits,
  whole: 1024 | 100,
): { shares: number; quotaUs: number | undefined; periodUs: number } {
  const percent = cpuAllowance?.kind === "share" ? cpuAllowance.percent : 100;
  const shares = Math.max(
    whole === 1024 ? 2 : 1, // the kernel's minimum
    Math.floor(whole * percent / 100) - (priorityMax - cpuPriority),
  );
  if (cpuAllowance?.kind !== "time") return { shares, quotaUs: undefined, periodUs: defaultPeriodUs };
  return { shares, quotaUs: cpuAllowance.quotaMs * 1000, periodUs: cpuAllowance.periodMs * 1000 };
}

function leastUsed(available: readonly number[], others: readonly (readonly number[])[]): number[] {
  const uses = new Map(available.map((cpu) => [cpu, 0]));
  for (const cpus of others) {
    // A container that may use all CPUs is bound to none.
    if (cpus.length >= available.length) continue;
    for (const cpu of cpus) uses.set(cpu, (uses.get(cpu) ?? 0) + 1);
  }
  return [...available].sort((a, b) => uses.get(a)! - uses.get(b)! || a - b);
}

/** @param text Such as "0-3,5"; empty for none. */
export function parseCpus(text: string): number[] {
  return text.split(",").filter(Boolean).flatMap((part) => {
    const [from = 0, to = from] = part.split("-").map(Number);
    return Array.from({ length: Math.min(to - from + 1, 8192) }, (_, index) => from + index);
  });
}

/** @returns The CPUs of this host, such as "0-3,5". @see Documentation/admin-guide/cputopology.rst of the kernel */
export function onlineCpus(): string {
  return read("/sys/devices/system/cpu/online");
}

function formatCpus(cpus: readonly number[]): string {
  const parts: string[] = [];
  for (let at = 0; at < cpus.length;) {
    let end = at;
    while (cpus[end + 1] === cpus[end]! + 1) end++;
    parts.push(end === at ? String(cpus[at]) : `${cpus[at]}-${cpus[end]}`);
    at = end + 1;
  }
  return parts.join(",");
}

/** Whether two texts mean the same value: the kernel shows sizes in whole pages, and "no limit" as a number. */
function isSame(shown: string, wanted: string): boolean {
  if (shown === wanted || shown === `default ${wanted}` || `default ${shown}` === wanted) return true;
  const isNumber = (text: string) => /^-?\d+$/.test(text);
  if (!isNumber(shown) || !isNumber(wanted)) return false;
  const [a, b] = [amount(shown), amount(wanted)];
  return a === b || (b > pageBytes && b / pageBytes * pageBytes === a);
}

/** Huge pages are counted whole, and some machines have pages of 64 KiB. */
function isRounded(shown: string, wanted: string): boolean {
  const [a, b] = [amount(shown), amount(wanted)];
  return b !== unlimitedFrom && a <= b && b - a < (1n << 30n);
}

function amount(text: string): bigint {
  if (!/^-?\d+$/.test(text)) return unlimitedFrom;
  const value = BigInt(text);
  return value < 0n || value >= unlimitedFrom ? unlimitedFrom : value;
}

function asWritten(shown: string): string {
  return /^\d+$/.test(shown) && BigInt(shown) >= unlimitedFrom ? unlimitedV1 : shown;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
