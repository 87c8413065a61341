/** Tables as lxc draws them: borders and a line below each row, on a terminal and in a pipe alike. */
import { displayWidth, neutralise } from "./text.ts";

function padRight(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - displayWidth(text)));
}

function padCentre(text: string, width: number): string {
  const gap = Math.max(0, width - displayWidth(text));
  const left = Math.floor(gap / 2);
  return " ".repeat(left) + text + " ".repeat(gap - left);
}

/** A cell may hold several lines. */
function linesOf(cell: string): string[] {
  return neutralise(cell).split("\n");
}

function layout(headers: readonly string[], rows: readonly (readonly string[])[]) {
  const cells = rows.map((row) => headers.map((_, column) => linesOf(row[column] ?? "")));
  const widths = headers.map((header, column) =>
    cells.reduce(
      (width, row) => (row[column] ?? []).reduce((most, line) => Math.max(most, displayWidth(line)), width),
      displayWidth(header),
    )
  );
  /** One row of the table as its lines, each a list of padded cells. */
  const linesOfRow = (row: string[][]): string[][] => {
    const height = Math.max(1, ...row.map((cell) => cell.length));
    return Array.from(
      { length: height },
      (_, line) => row.map((cell, column) => padRight(cell[line] ?? "", widths[column] ?? 0)),
    );
  };
  const head = headers.map((header, column) => padCentre(header, widths[column] ?? 0));
  return { widths, head, body: cells.map(linesOfRow) };
}

/** The bordered form. */
export function table(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const { widths, head, body } = layout(headers, rows);
  const rule = `+${widths.map((width) => "-".repeat(width + 2)).join("+")}+\n`;
  const line = (cells: string[]) => `| ${cells.join(" | ")} |\n`;
  return rule + line(head) + rule + body.map((row) => row.map(line).join("") + rule).join("");
}

/** The form without borders. */
export function compact(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const { head, body } = layout(headers, rows);
  const line = (cells: string[]) => `  ${cells.join("  ")}  \n`;
  return line(head) + body.map((row) => row.map(line).join("")).join("");
}

/** Comma separated values without a header, quoted as Go's encoding/csv does. */
export function csv(rows: readonly (readonly string[])[]): string {
  const quote = (cell: string) => /^\\\.$|^[ \t]|[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  return rows.map((row) => `${row.map(quote).join(",")}\n`).join("");
}
