import type { Instance, InstanceFull } from "../../api/types.ts";
import { type Column, instanceColumns, matches } from "../output/instance_columns.ts";
import { render } from "../output/render.ts";
import { verb } from "../verb.ts";

export const verbs = [verb({
  words: "list",
  args: ["filter..."],
  flags: {
    format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" },
    columns: { short: "c", value: "columns", initial: "ns46tS", summary: "Columns" },
    fast: { summary: "Fast mode (same as --columns=nsacPt)" },
  },
  summary: "List instances",
  details: `A filter is the beginning of a name, a regular expression on the name, or key=value on the configuration or
on type, status and architecture. Several filters must all fit.

Columns:
  4 IPv4 address             6 IPv6 address            a Architecture
  b Storage pool             c Creation date           d Description
  D Disk usage               e Project                 f Base image (short)
  F Base image               l Last used date          L Location
  m Memory usage             n Name                    N Number of processes
  p PID of init              P Profiles                s State
  S Number of snapshots      t Type                    u CPU usage in seconds
  [config:|devices:]key[:title[:maximum width]]
`,
  async run(io, filters, flags) {
    const columns: Column[] = instanceColumns(flags.fast ? "nsacPt" : flags.columns);
    const full = flags.format === "json" || flags.format === "yaml" || columns.some((column) => column.full);
    const path = `/1.0/instances?recursion=${full ? 2 : 1}`;
    const all = await io.client.get<(InstanceFull | Instance)[]>(path);
    const raw = (all as InstanceFull[]).filter((instance) => matches(instance, filters))
      .sort((left, right) => left.name < right.name ? -1 : left.name > right.name ? 1 : 0);
    io.out(
      await render(flags.format, {
        headers: columns.map((column) => column.title),
        rows: raw.map((instance) => columns.map((column) => column.value(instance))),
        raw,
        kind: "instance",
      }),
    );
  },
})];
