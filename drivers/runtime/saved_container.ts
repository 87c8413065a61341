import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startTicks } from "../host/process/process.ts";
import type { IdMap } from "../host/id_map.ts";
import type { ContainerSpec } from "./runtime.ts";

/** Record of a container for the next daemon: enough to recognise its process and not to mistake another for it. */
export interface SavedContainer {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, in ticks since boot: a pid may be used again, a pid with its start time may not. */
  readonly startTicks: string;
  readonly startedAt: string;
  readonly idmap?: IdMap;
  /** Absent for a container started by a daemon without consoles. */
  readonly consoleLog?: string;
}

/** @param directory The container's. @param pid Its init's. */
export function writeSaved(directory: string, spec: ContainerSpec, pid: number): SavedContainer {
  const kept: SavedContainer = {
    pid,
    startTicks: startTicks(pid) ?? "", // empty if it has ended already
    startedAt: new Date().toISOString(),
    ...(spec.idmap ? { idmap: spec.idmap } : {}),
    consoleLog: spec.consoleLog,
  };
  writeFileSync(fileIn(directory), JSON.stringify(kept), { mode: 0o600 });
  return kept;
}

/** @returns undefined when there is none, or the daemon was killed while writing it. */
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
