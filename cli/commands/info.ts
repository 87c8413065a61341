import type { InstanceFull, Server } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { neutralise } from "../output/text.ts";
import { showBytes } from "../../api/size.ts";
import { shortDate } from "../output/units.ts";
import { showYaml } from "../settings.ts";
import { verb } from "../verb.ts";

const logLinesMax = 100;

function resourcesOf({ state }: InstanceFull): string[] {
  if (!state || state.pid === 0) return [];
  const disks = Object.entries(state.disk ?? {}).filter(([, { usage }]) => usage > 0);
  const memory = [["current", state.memory.usage], ["peak", state.memory.usage_peak]] as const;
  const shown = memory.filter(([, bytes]) => bytes > 0);
  return [
    "",
    "Resources:",
    `  Processes: ${state.processes}`,
    ...(disks.length > 0 ? ["  Disk usage:"] : []),
    ...disks.map(([name, { usage }]) => `    ${name}: ${showBytes(usage)}`),
    "  CPU usage:",
    `    CPU usage (in seconds): ${Math.floor(state.cpu.usage / 1e9)}`,
    ...(shown.length > 0 ? ["  Memory usage:"] : []),
    ...shown.map(([name, bytes]) => `    Memory (${name}): ${showBytes(bytes)}`),
  ];
}

function lastExitOf({ state }: InstanceFull): string[] {
  if (!state?.last_exit) return [];
  const { at, description, cause, console } = state.last_exit;
  return [
    `Last exit: ${shortDate(at)}, ${description}${cause === "" ? "" : `: ${cause}`}`,
    ...(console.length === 0 ? [] : ["  Its console ended with:"]),
    ...console.map((line) => `    ${neutralise(line)}`),
  ];
}

async function snapshotsOf({ snapshots }: InstanceFull): Promise<string[]> {
  if (!snapshots || snapshots.length === 0) return [];
  const { fittedTable } = await import("../output/render.ts");
  const rows = snapshots.map((one) => [
    one.name.split("/").at(-1)!,
    shortDate(one.created_at),
    shortDate(one.expires_at),
    one.stateful ? "YES" : "NO",
  ]);
  return ["", "Snapshots:", (await fittedTable(["NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"], rows)).trimEnd()];
}

export const verbs = [verb({
  words: "info",
  args: ["instance?"],
  flags: { showLog: { summary: `Show the last ${logLinesMax} lines of the instance's console` } },
  summary: "Show instance or server information",
  async run(io, [name], flags) {
    if (name === undefined) return await showYaml(io, "server", await io.client.get<Server>("/1.0"));
    const path = url`/1.0/instances/${name}`;
    const instance = await io.client.get<InstanceFull>(`${path}?recursion=1`);
    const lines = [
      `Name: ${instance.name}`,
      ...(instance.description === "" ? [] : [`Description: ${instance.description}`]),
      `Status: ${instance.status.toUpperCase()}`,
      `Type: ${instance.type}${instance.ephemeral ? " (ephemeral)" : ""}`,
      `Architecture: ${instance.architecture}`,
      ...(instance.state && instance.state.pid > 0 ? [`PID: ${instance.state.pid}`] : []),
      ...(shortDate(instance.created_at) === "" ? [] : [`Created: ${shortDate(instance.created_at)}`]),
      ...(shortDate(instance.last_used_at) === "" ? [] : [`Last Used: ${shortDate(instance.last_used_at)}`]),
      ...lastExitOf(instance),
      ...resourcesOf(instance),
      ...await snapshotsOf(instance),
    ];
    io.out(`${lines.join("\n")}\n`);
    if (!flags.showLog) return;
    // As with lxc, the log of an instance that was never started is empty.
    const text = await io.client.text(`${path}/logs/lxc.log`);
    io.out(`\nLog:\n\n${text.split("\n").slice(-logLinesMax - 1).join("\n")}\n`);
  },
})];
