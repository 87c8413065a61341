import { readFile } from "node:fs/promises";
import type { Instance, InstanceExit, InstanceState, StatusCode } from "../../api/types.ts";
import { statusCodes } from "../../api/types.ts";
import type { RunningContainer, Runtime } from "../../drivers/runtime/runtime.ts";
import type { Expanded, InstanceRecord, SnapshotRecord } from "./table.ts";

/** What LXD's clients take for "never". */
const noTime = "0001-01-01T00:00:00Z";
const unixZero = "1970-01-01T00:00:00Z";

/** "ending": its processes have ended and its mounts are not yet removed; as LXD, it counts as running until then. */
export type Phase = RunningContainer["status"] | "ending" | "stopped";

const codes: Readonly<Record<Phase, StatusCode>> = { running: 103, frozen: 110, ending: 103, stopped: 102 };

function statusOf(phase: Phase): { status: string; status_code: number } {
  const code = codes[phase];
  return { status: statusCodes[code], status_code: code };
}

export function instanceView(
  record: InstanceRecord,
  expanded: Expanded,
  phase: Phase,
): Instance {
  return {
    name: record.name,
    description: record.description,
    ...statusOf(phase),
    type: "container",
    architecture: record.architecture,
    config: record.config,
    devices: record.devices,
    expanded_config: expanded.config,
    expanded_devices: expanded.devices,
    profiles: [...record.profiles],
    ephemeral: record.ephemeral,
    stateful: false,
    created_at: record.createdAt,
    last_used_at: record.lastUsedAt ?? unixZero,
    location: "none",
    project: "default",
  };
}

export type InstanceSnapshotView =
  & Omit<Instance, "status" | "status_code" | "type" | "location" | "project" | "description">
  & { expires_at: string; size: number };

export function snapshotView(
  record: InstanceRecord,
  snapshot: SnapshotRecord,
  expanded: Expanded,
): InstanceSnapshotView {
  return {
    name: snapshot.name,
    architecture: record.architecture,
    config: snapshot.config,
    devices: snapshot.devices,
    expanded_config: expanded.config,
    expanded_devices: expanded.devices,
    profiles: [...snapshot.profiles],
    ephemeral: record.ephemeral,
    stateful: false,
    created_at: snapshot.createdAt,
    expires_at: snapshot.expiresAt ?? noTime,
    last_used_at: noTime,
    size: -1,
  };
}

/** What an instance uses now. @param of.disk Bytes of its root disk where the pool can tell. */
export async function stateView(
  runtime: Runtime,
  { name, disk, phase, lastExit }: {
    name: string;
    disk: InstanceState["disk"];
    phase: () => Phase;
    lastExit: InstanceExit | undefined;
  },
): Promise<InstanceState> {
  const running = runtime.get(name);
  const stopped: InstanceState = {
    ...statusOf(phase()),
    pid: 0,
    processes: 0,
    cpu: { usage: 0 },
    memory: { usage: 0, usage_peak: 0, swap_usage: 0, swap_usage_peak: 0 },
    disk,
    network: null,
    last_exit: lastExit ?? null,
  };
  if (!running) return stopped;
  const [usage, loopback] = await Promise.all([runtime.usage(name).catch(() => undefined), loopbackOf(running.pid)]);
  // The container has ended meanwhile.
  if (!usage) return { ...stopped, ...statusOf(phase()) };
  return {
    ...stopped,
    pid: running.pid,
    processes: usage.processes,
    cpu: { usage: Number(usage.cpuNs) },
    memory: { ...stopped.memory, usage: Number(usage.memoryBytes), usage_peak: Number(usage.memoryPeakBytes) },
    network: loopback && { lo: loopback },
  };
}

/** The loopback device of a process's network namespace, as LXD shows it. @see proc_pid_net(5) */
async function loopbackOf(pid: number): Promise<Record<string, unknown> | null> {
  const [devices, addresses] = await Promise.all([
    readFile(`/proc/${pid}/net/dev`, "utf8").catch(() => ""),
    readFile(`/proc/${pid}/net/if_inet6`, "utf8").catch(() => ""),
  ]);
  const numbers = /^\s*lo:\s*(.*)$/m.exec(devices)?.[1]?.trim().split(/\s+/).map(Number);
  if (!numbers) return null;
  const isUp = /\blo$/m.test(addresses);
  return {
    addresses: isUp
      ? [
        { family: "inet", address: "127.0.0.1", netmask: "8", scope: "local" },
        { family: "inet6", address: "::1", netmask: "128", scope: "local" },
      ]
      : [],
    counters: {
      bytes_received: numbers[0] ?? 0,
      packets_received: numbers[1] ?? 0,
      errors_received: numbers[2] ?? 0,
      packets_dropped_inbound: numbers[3] ?? 0,
      bytes_sent: numbers[8] ?? 0,
      packets_sent: numbers[9] ?? 0,
      errors_sent: numbers[10] ?? 0,
      packets_dropped_outbound: numbers[11] ?? 0,
    },
    host_name: "",
    hwaddr: "",
    mtu: 65536,
    state: isUp ? "up" : "down",
    type: "loopback",
  };
}
