/** YAML as lxc prints it (Go's yaml.v2): maps of settings sorted, lists not indented, quotes only where they are needed.
 * Small on purpose: loading the `yaml` package costs as much as the request itself, so it is loaded only to parse. */

/** Strings that a YAML 1.1 reader would not read as a string. */
const ambiguous =
  /^(?:~|null|Null|NULL|y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE|<<|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$|^[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|\.?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9]*)?)$|^\d{4}-\d{1,2}-\d{1,2}(?:[Tt ].*)?$/;
/** Strings that need quotes: indicators at the start, `: ` and ` #` inside, blanks at the ends. */
const notPlain = /^[-?:](?:\s|$)|^[,[\]{}#&*!|>'"%@`]|: |:$| #|^\s|\s$|^---|^\.\.\.|^=$/;

function scalar(value: string, indent: string): string {
  if (value === "" || ambiguous.test(value)) return JSON.stringify(value);
  if (
    // deno-lint-ignore no-control-regex
    /[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]/.test(value) ||
    /^\n*$|^ |\n /.test(value) && value.includes("\n")
  ) {
    return JSON.stringify(value);
  }
  if (value.includes("\n")) {
    const keep = value.endsWith("\n\n") ? "+" : value.endsWith("\n") ? "" : "-";
    const body = value.endsWith("\n") ? value.slice(0, -1) : value;
    return `|${keep}\n${body.split("\n").map((line) => line === "" ? "" : `${indent}  ${line}`).join("\n")}`;
  }
  return notPlain.test(value) ? `'${value.replaceAll("'", "''")}'` : value;
}

/** Fields that are times in LXD's structures are printed without quotes. */
const times = /^(created|expires|last_used|uploaded|updated|ended|modified)_at$/;
function isTime(key: string, value: unknown): value is string {
  return times.test(key) && typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(value);
}

function isEmpty(value: unknown): boolean {
  return Array.isArray(value) ? value.length === 0 : Object.keys(value as object).length === 0;
}

function emit(value: unknown, indent: string): string {
  if (value === null || value === undefined) return "null";
  if (typeof value === "string") return scalar(value, indent.slice(2));
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) {
    return value.map((item) => `${indent}- ${nested(item, `${indent}  `).trimStart()}`).join("\n");
  }
  return Object.entries(value).filter(([, item]) => item !== undefined).map(([key, item]) => {
    const label = `${indent}${scalar(key, indent)}:`;
    // Go omits trailing zeros of the fraction of a second.
    if (isTime(key, item)) return `${label} ${item.replace(/(\.\d*?)0+Z$/, "$1Z").replace(".Z", "Z")}`;
    if (item === null || typeof item !== "object") return `${label} ${emit(item, `${indent}  `)}`;
    if (isEmpty(item)) return `${label} ${Array.isArray(item) ? "[]" : "{}"}`;
    return `${label}\n${emit(item, Array.isArray(item) ? indent : `${indent}  `)}`;
  }).join("\n");
}

function nested(value: unknown, indent: string): string {
  if (value !== null && typeof value === "object" && isEmpty(value)) return Array.isArray(value) ? "[]" : "{}";
  return emit(value, indent);
}

/** The document with a newline at its end. */
export function yaml(value: unknown): string {
  return `${nested(value, "")}\n`;
}
