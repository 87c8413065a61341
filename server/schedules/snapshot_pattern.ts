import { messageOf } from "../../api/errors.ts";
import { checkName } from "../store/names.ts";

/** `snapshots.pattern`: text with "%d" for a number at most once, and `{{ creation_date }}` for the time, in ISO 8601 or, by the filter `date`, in a
 * layout of Go's: `{{ creation_date|date:'2006-01-02_15-04-05' }}`. Of LXD's template language (pongo2), LXD's manual mentions only this. */

const placeholder = /\{\{(.*?)\}\}/gs;
const known = /^\s*creation_date\s*(?:\|\s*date\s*:\s*(?:'([^']*)'|"([^"]*)")\s*)?$/;

/** @returns Why the pattern is invalid; undefined when it is valid. */
export function patternProblem(pattern: string): string | undefined {
  const refuse = (why: string) => `Invalid snapshot pattern ${JSON.stringify(pattern)}: ${why}`;
  for (const [whole, inner = ""] of pattern.matchAll(placeholder)) {
    if (known.test(inner)) continue;
    return refuse(`"${whole}": {{ creation_date }} and {{ creation_date|date:'2006-01-02_15-04-05' }} are allowed`);
  }
  if (/\{\{|\}\}|\{%|%\}|\{#/.test(pattern.replace(placeholder, ""))) return refuse("it is not a whole template");
  if (pattern.split("%d").length > 2) return refuse("Snapshot pattern may contain '%d' only once");
  try {
    checkName("Storage volume snapshot", render(pattern, new Date()).replace("%d", "0"));
  } catch (error) {
    return refuse(messageOf(error));
  }
  return undefined;
}

/** @param taken Existing names. @returns The next name: "%d" becomes the highest number in use plus one, from 0 on; without "%d", a name that is
 * taken gets "-0", "-1" and so on. */
export function nextSnapshotName(pattern: string, taken: readonly string[], now: Date): string {
  const name = render(pattern, now);
  if (name.includes("%d")) return numbered(name, taken);
  return taken.includes(name) ? numbered(`${name}-%d`, taken) : name;
}

function numbered(pattern: string, taken: readonly string[]): string {
  const [before = "", after = ""] = pattern.split("%d", 2);
  const numbers = taken.flatMap((name) => {
    const middle = name.slice(before.length, name.length - after.length);
    return name.startsWith(before) && name.endsWith(after) && /^\d+$/.test(middle) ? [Number(middle)] : [];
  });
  return `${before}${Math.max(-1, ...numbers) + 1}${after}`;
}

function render(pattern: string, now: Date): string {
  return pattern.replace(placeholder, (_, inner: string) => {
    const [, single, double] = known.exec(inner) ?? [];
    return formatGo(single ?? double ?? "2006-01-02T15:04:05", now);
  });
}

const months = "January February March April May June July August September October November December".split(" ");
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
const two = (value: number) => String(value).padStart(2, "0");

/** The elements of Go's reference time, longer ones before those that they begin with. @see https://pkg.go.dev/time#Layout */
const elements: Readonly<Record<string, (time: Date) => string>> = {
  "2006": (time) => String(time.getFullYear()).padStart(4, "0"),
  "January": (time) => months[time.getMonth()]!,
  "Jan": (time) => months[time.getMonth()]!.slice(0, 3),
  "Monday": (time) => days[time.getDay()]!,
  "Mon": (time) => days[time.getDay()]!.slice(0, 3),
  "-07:00": (time) => zone(time, ":"),
  "-0700": (time) => zone(time, ""),
  "002": (time) => String(dayOfYear(time)).padStart(3, "0"),
  "01": (time) => two(time.getMonth() + 1),
  "02": (time) => two(time.getDate()),
  "03": (time) => two(time.getHours() % 12 || 12),
  "04": (time) => two(time.getMinutes()),
  "05": (time) => two(time.getSeconds()),
  "06": (time) => two(time.getFullYear() % 100),
  "15": (time) => two(time.getHours()),
  "PM": (time) => time.getHours() < 12 ? "AM" : "PM",
  "pm": (time) => time.getHours() < 12 ? "am" : "pm",
  "1": (time) => String(time.getMonth() + 1),
  "2": (time) => String(time.getDate()),
  "3": (time) => String(time.getHours() % 12 || 12),
  "4": (time) => String(time.getMinutes()),
  "5": (time) => String(time.getSeconds()),
};
const element = new RegExp(Object.keys(elements).sort((left, right) => right.length - left.length).join("|"), "g");

/** @param layout How Go's reference time, Mon Jan 2 15:04:05 2006, would be written. */
function formatGo(layout: string, time: Date): string {
  return layout.replace(element, (one) => elements[one]!(time));
}

function zone(time: Date, between: string): string {
  const minutes = -time.getTimezoneOffset(), size = Math.abs(minutes);
  return `${minutes < 0 ? "-" : "+"}${two(Math.floor(size / 60))}${between}${two(size % 60)}`;
}

function dayOfYear(time: Date): number {
  const midnight = Date.UTC(time.getFullYear(), time.getMonth(), time.getDate());
  return Math.round((midnight - Date.UTC(time.getFullYear(), 0, 0)) / 86_400_000);
}
