/** Tables as lxc draws them: borders and a line below each row. On a terminal they fit its width: the widest columns get narrower, with
 * cells of several lines. If even that is too wide, the compact form is used, which truncates cells and, where nothing else helps, leaves out
 * the last columns. A pipe gets everything. */
import { displayWidth, elide, neutralise, wrap } from "./text.ts";

/** A column with wider content is not made narrower than this, in characters. */
const narrowestColumn = 10;

type Row = readonly string[];

function padRight(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - displayWidth(text)));
}

function padCentre(text: string, width: number): string {
  const gap = Math.max(0, width - displayWidth(text));
  const left = Math.floor(gap / 2);
  return " ".repeat(left) + text + " ".repeat(gap - left);
}

/** A cell may have several lines. */
function linesOf(cell: string): string[] {
  return neutralise(cell).split("\n");
}

const widest = (lines: readonly string[]) => lines.reduce((most, line) => Math.max(most, displayWidth(line)), 0);
const sum = (numbers: readonly number[]) => numbers.reduce((total, one) => total + one, 0);

/** Column widths that fit: the widest column is narrowed first, down to the next one, then both, and so on.
 * @param least Least width of each column, in characters. @returns undefined when even these are too wide. */
function narrowed(natural: readonly number[], least: readonly number[], available: number): number[] | undefined {
  const widths = [...natural];
  while (sum(widths) > available) {
    const shrinkable = widths.map((width, column) => width > least[column]! ? width : 0);
    const most = Math.max(...shrinkable);
    if (most === 0) return undefined;
    const column = shrinkable.lastIndexOf(most);
    widths[column] = widths[column]! - 1;
  }
  return widths;
}

interface Layout {
  readonly widths: readonly number[];
  /** The header's lines, and those of each row; a line is a list of padded cells. */
  readonly head: string[][];
  readonly body: string[][][];
}

type Shape = (line: string, width: number) => string[];

/** The width of each column's cells. */
function measure(headers: Row, rows: readonly Row[]): number[] {
  return headers.map((_, column) => rows.reduce((most, row) => Math.max(most, widest(linesOf(row[column] ?? ""))), 0));
}

/** @param shape Wraps or truncates a line that is too wide. */
function layout(headers: Row, rows: readonly Row[], widths: readonly number[], shape: Shape): Layout {
  const linesIn = (cells: readonly string[][], pad: typeof padRight): string[][] =>
    Array.from(
      { length: Math.max(1, ...cells.map((cell) => cell.length)) },
      (_, line) => cells.map((cell, column) => pad(cell[line] ?? "", widths[column]!)),
    );
  const shaped = (row: Row) =>
    widths.map((width, column) => linesOf(row[column] ?? "").flatMap((line) => shape(line, width)));
  return { widths, head: linesIn(shaped(headers), padCentre), body: rows.map((row) => linesIn(shaped(row), padRight)) };
}

/** The bordered form.
 * @param columns Width of the terminal; absent means any. A table that cannot be made so narrow gets the compact form. */
export function table(headers: Row, rows: readonly Row[], columns = Infinity): string {
  const cells = measure(headers, rows);
  const natural = headers.map((header, column) => Math.max(displayWidth(header), cells[column]!));
  const least = headers.map((header, column) =>
    Math.max(widest(header.split(" ")), Math.min(cells[column]!, narrowestColumn))
  );
  const widths = narrowed(natural, least, columns - 3 * headers.length - 1);
  if (widths === undefined) return compact(headers, rows, columns);
  const { head, body } = layout(headers, rows, widths, wrap);
  const rule = `+${widths.map((width) => "-".repeat(width + 2)).join("+")}+\n`;
  const line = (cells: string[]) => `| ${cells.join(" | ")} |\n`;
  return rule + head.map(line).join("") + rule + body.map((row) => row.map(line).join("") + rule).join("");
}

interface Spacing {
  /** Blanks before the first column, and between two. */
  readonly margin: number;
  readonly gap: number;
  /** A column with wider content is not made narrower than this, in characters. */
  readonly least: number;
}

/** Spacings of the compact form, in the order in which they are tried. */
const spacings: readonly Spacing[] = [
  { margin: 2, gap: 2, least: 6 },
  { margin: 0, gap: 1, least: 6 },
  { margin: 0, gap: 1, least: 4 },
];

/** Drops the least important column, when even the narrowest spacing is too wide: the last empty one, or else the last. */
function dropped(headers: Row, rows: readonly Row[]): [Row, Row[]] {
  const empty = headers.findLastIndex((_, column) => rows.length > 0 && rows.every((row) => !row[column]));
  const column = empty === -1 ? headers.length - 1 : empty;
  const without = (row: Row) => row.filter((_, index) => index !== column);
  return [without(headers), rows.map(without)];
}

/** The form without borders. @param columns As in `table`. */
export function compact(headers: Row, rows: readonly Row[], columns = Infinity): string {
  const natural = measure(headers, [headers, ...rows]);
  for (const { margin, gap, least } of spacings) {
    const available = Math.max(1, columns) - margin - gap * (headers.length - 1);
    const lowest = margin === 0 && headers.length === 1 ? 1 : least;
    const widths = narrowed(natural, natural.map((width) => Math.min(width, lowest)), available);
    if (widths === undefined) continue;
    const { head, body } = layout(headers, rows, widths, elide);
    const line = (cells: string[]) => `${" ".repeat(margin)}${cells.join(" ".repeat(gap))}`.trimEnd() + "\n";
    return head.map(line).join("") + body.map((row) => row.map(line).join("")).join("");
  }
  return compact(...dropped(headers, rows), columns);
}

/** Comma separated values without a header, quoted as Go's encoding/csv does. */
export function csv(rows: readonly Row[]): string {
  const quote = (cell: string) => /^\\\.$|^[ \t]|[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  return rows.map((row) => `${row.map(quote).join(",")}\n`).join("");
}
