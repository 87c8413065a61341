/** Widths and safety of text on a terminal. */

/** Ranges of code points that take two columns (Unicode East Asian Wide and Fullwidth, emoji). */
const wide: readonly (readonly [number, number])[] = [
  [0x1100, 0x115f],
  [0x231a, 0x231b],
  [0x2329, 0x232a],
  [0x23e9, 0x23ec],
  [0x25fd, 0x25fe],
  [0x2614, 0x2615],
  [0x2648, 0x2653],
  [0x26aa, 0x26ab],
  [0x2705, 0x2705],
  [0x2728, 0x2728],
  [0x274c, 0x274c],
  [0x2753, 0x2755],
  [0x2795, 0x2797],
  [0x2e80, 0x303e],
  [0x3041, 0x33ff],
  [0x3400, 0x4dbf],
  [0x4e00, 0xa4cf],
  [0xa960, 0xa97f],
  [0xac00, 0xd7a3],
  [0xf900, 0xfaff],
  [0xfe30, 0xfe6f],
  [0xff00, 0xff60],
  [0xffe0, 0xffe6],
  [0x1f300, 0x1f64f],
  [0x1f680, 0x1f6ff],
  [0x1f900, 0x1f9ff],
  [0x20000, 0x3fffd],
];

/** Columns that a text needs on a terminal: wide characters two, combining marks none. */
export function displayWidth(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length;
  let columns = 0;
  for (const character of text) {
    const point = character.codePointAt(0) ?? 0;
    if (/^[\p{Mn}\p{Me}\p{Cf}]$/u.test(character)) continue;
    columns += wide.some(([low, high]) => point >= low && point <= high) ? 2 : 1;
  }
  return columns;
}

/** How many UTF-16 units of a text fit into a number of columns. */
function fitting(text: string, columns: number): number {
  let units = 0, width = 0;
  for (const character of text) {
    width += displayWidth(character);
    if (width > columns) break;
    units += character.length;
  }
  return units;
}

/** Splits a line in several, none wider than `columns`; broken after a blank or one of `,/.:_-` in its second half if it has one. */
export function wrap(line: string, columns: number): string[] {
  const lines: string[] = [];
  let rest = line;
  while (displayWidth(rest) > columns) {
    // A single character that is wider than the column exceeds it.
    const most = fitting(rest, columns) || String.fromCodePoint(rest.codePointAt(0)!).length;
    // A blank at the break may be just outside.
    const before = /^.*[\s,/.:_-]/s.exec(rest.slice(0, rest[most] === " " ? most + 1 : most))?.[0].length ?? 0;
    const length = before > most / 2 ? before : most;
    lines.push(rest.slice(0, length).trimEnd());
    rest = rest.slice(length);
  }
  return rest === "" && lines.length > 0 ? lines : [...lines, rest];
}

/** Truncates a line that is wider than `columns`, with an ellipsis for the rest. */
export function elide(line: string, columns: number): string[] {
  return [displayWidth(line) <= columns ? line : `${line.slice(0, fitting(line, columns - 1))}…`];
}

/** Makes control characters (above all escape sequences) and bidirectional overrides visible. */
export function neutralise(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, (character) => {
    const code = character.charCodeAt(0);
    if (code === 9) return "    ";
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
  });
}
