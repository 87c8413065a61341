/** The limits that an instance's configuration asks for, and which changes of it wait for the next start. */

import { totalmem } from "node:os";
import { parseSizeBytes } from "../../../api/size.ts";
import type { Config } from "../../../api/types.ts";
import type { Limits } from "../../../drivers/runtime/runtime.ts";
import { instanceKeys, isFalse } from "../../config/instance.ts";

const hugepagesPrefix = "limits.hugepages.";

/** @param config Expanded, and checked. */
export function limitsOf(config: Config): Limits {
  const number = (key: string): number | undefined => config[key] ? Number(config[key]) : undefined;
  const hugepages = Object.entries(config).filter(([key, value]) => key.startsWith(hugepagesPrefix) && value !== "");
  const memoryBytes = memoryOf(config["limits.memory"]);
  const cpus = config["limits.cpu"];
  const enforce = config["limits.memory.enforce"] === "soft" ? "soft" : "hard";
  return present({
    memory: memoryBytes === undefined ? undefined : { bytes: memoryBytes, enforce } as const,
    swap: !isFalse(config["limits.memory.swap"]),
    swapPriority: number("limits.memory.swap.priority"),
    processes: number("limits.processes"),
    // A bare number is a count of CPUs, anything else a set.
    cpus: cpus && /^\d+$/.test(cpus) ? Number(cpus) : cpus || undefined,
    cpuAllowance: allowanceOf(config["limits.cpu.allowance"]),
    cpuPriority: number("limits.cpu.priority"),
    hugepages: Object.fromEntries(
      hugepages.map(([key, value]) => [key.slice(hugepagesPrefix.length), parseSizeBytes(value)!]),
    ),
    diskPriority: number("limits.disk.priority"),
  });
}

function memoryOf(text: string | undefined): bigint | undefined {
  if (!text) return undefined;
  return text.endsWith("%") ? BigInt(totalmem()) * BigInt(text.slice(0, -1)) / 100n : parseSizeBytes(text);
}

function allowanceOf(text: string | undefined): Limits["cpuAllowance"] {
  if (!text) return undefined;
  if (text.endsWith("%")) return { kind: "share", percent: Number(text.slice(0, -1)) };
  const [quotaMs, periodMs] = text.split("/").map((part) => Number(part.replace("ms", "")));
  return { kind: "time", quotaMs: quotaMs!, periodMs: periodMs! };
}

type Present<T> = { [Key in keyof T]: Exclude<T[Key], undefined> };

function present<T extends object>(value: T): Present<T> {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as Present<T>;
}

/** @returns The keys that differ and take effect with the next start, in their order. */
export function keysThatWait(before: Config, after: Config): string[] {
  const changed = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((key) =>
    (before[key] ?? "") !== (after[key] ?? "")
  );
  return changed.filter((key) => instanceKeys()[key]?.effect === "next start").sort();
}

/** The note for the client about these keys. */
export function restartNote(name: string, keys: readonly string[]): string | undefined {
  return keys.length === 0 ? undefined : `${keys.join(", ")}: takes effect when "${name}" is restarted`;
}
