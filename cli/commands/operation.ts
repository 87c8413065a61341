import type { Operation } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { render } from "../output/render.ts";
import { shortDate } from "../output/units.ts";
import { showYaml } from "../settings.ts";
import { verb } from "../verb.ts";

export const verbs = [
  verb({
    words: "operation list",
    aliases: ["operation ls"],
    args: [],
    flags: { format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" } },
    summary: "List background operations",
    async run(io, _args, flags) {
      const byStatus = await io.client.get<Record<string, Operation[]>>("/1.0/operations?recursion=1");
      const raw = Object.values(byStatus).flat();
      raw.sort((left, right) => left.created_at < right.created_at ? -1 : 1);
      io.out(
        await render(flags.format, {
          headers: ["ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"],
          rows: raw.map((operation) => [
            operation.id,
            operation.class.toUpperCase(),
            operation.description,
            operation.status.toUpperCase(),
            operation.may_cancel ? "YES" : "NO",
            shortDate(operation.created_at),
          ]),
          raw,
          kind: "operation",
        }),
      );
    },
  }),
  verb({
    words: "operation show",
    args: ["operation"],
    flags: {},
    summary: "Show a background operation",
    async run(io, [id = ""]) {
      await showYaml(io, "operation", await io.client.get<Operation>(url`/1.0/operations/${id}`));
    },
  }),
  verb({
    words: "operation delete",
    aliases: ["operation cancel", "operation rm"],
    args: ["operation"],
    flags: {},
    summary: "Cancel a background operation",
    async run(io, [id = ""]) {
      await io.client.request("DELETE", url`/1.0/operations/${id}`);
      if (!io.quiet) io.out(`Operation ${id} deleted\n`);
    },
  }),
];
