import { UsageError } from "../client/errors.ts";
import { terminalColumns } from "../terminal/columns.ts";
import { type Kind, ordered } from "./order.ts";
import { compact, csv, table } from "./table.ts";

export const formats = ["csv", "json", "table", "yaml", "compact"];

export interface Listing {
  headers: readonly string[];
  rows: readonly (readonly string[])[];
  /** The objects for json and yaml. */
  raw: readonly object[];
  kind: Kind;
}

/** A listing in the requested format, ready to be printed.
 * @throws {UsageError} If the format is unknown. */
export async function render(format: string, listing: Listing): Promise<string> {
  switch (format) {
    case "table":
      return await fittedTable(listing.headers, listing.rows);
    case "compact":
      return compact(listing.headers, listing.rows, await terminalColumns());
    case "csv":
      return csv(listing.rows);
    case "json":
      return `${JSON.stringify(listing.raw.map((item) => ordered(listing.kind, item)))}\n`;
    case "yaml":
      return (await import("./yaml.ts")).yaml(listing.raw.map((item) => ordered(listing.kind, item)));
    default:
      throw new UsageError(`Invalid format "${format}": ${formats.join(", ")} are allowed`);
  }
}

/** A table that fits the terminal. */
export async function fittedTable(
  headers: readonly string[],
  rows: readonly (readonly string[])[],
): Promise<string> {
  return table(headers, rows, await terminalColumns());
}
