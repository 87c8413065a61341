import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startTicks } from "../host/process/process.ts";
import type { IdMap } from "../host/id_map.ts";
import type { ContainerSpec } from "./runtime.ts";

/** What is kept beside a container for the next daemon: enough to know the process again and not to mistake another for it. */
export interface SavedContainer {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, in ticks since boot: a pid may be used again, this with it may not. */
  readonly startTicks: string;
  readonly startedAt: string;
  readonly idmap?: IdMap;
  /** Absent for a container that a daemon without consoles had started. */
  readonly consoleLog?: string;
}

/** @param directory Of the container. @param pid Its init. */
export function writeSaved(directory: string, spec: ContainerSpec, pid: number): SavedContainer {
  const kept: SavedContainer = {
    pid,
    startTicks: startTicks(pid) ?? "", // of one that has ended already
    startedAt: new Date().toISOString(),
    ...(spec.idmap ? { idmap: spec.idmap } : {}),
    consoleLog: spec.consoleLog,
  };
  writeFileSync(fileIn(directory), JSON.stringify(kept), { mode: 0o600 });
  return kept;
}

/** @returns undefined when there is none, or the daemon was killed while it wrote it. */
export function readSaved(directory: string): SavedContainer | undefined {
  try {
    return JSON.parse(readFileSync(fileIn(directory), "utf8"));
  } catch {
    return undefined;
  }
}

function fileIn(directory: string): string {
  return join(directory, "state.json");
}
