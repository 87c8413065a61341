import { Cron } from "croner";

/** LXD's names for common schedules. */
const names: Readonly<Record<string, string>> = {
  "@hourly": "0 * * * *",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@weekly": "0 0 * * 0",
  "@monthly": "0 0 1 * *",
  "@annually": "0 0 1 1 *",
  "@yearly": "0 0 1 1 *",
};

/** @param text Value of `snapshots.schedule`: cron expressions of five fields, or names such as "@daily", separated by commas; "" and "@never" mean
 * no schedule. @returns Why the value is invalid; undefined when it is valid. */
export function scheduleProblem(text: string): string | undefined {
  try {
    patternsOf(text);
  } catch {
    const allowed = Object.keys(names).join(", ");
    return `Invalid schedule "${text}": five fields of cron, ${allowed} or @never are allowed`;
  }
  return undefined;
}

/** @returns The first run after `after`, by the host's time zone; undefined means never. */
export function nextRun(text: string, after: Date): Date | undefined {
  const times = patternsOf(text).flatMap((pattern) => pattern.nextRun(after) ?? []);
  return times.sort((left, right) => left.getTime() - right.getTime())[0];
}

function patternsOf(text: string): Cron[] {
  if (text.trim() === "" || text.trim() === "@never") return [];
  // A comma separates schedules when a blank or a name follows it; else it is part of a field.
  return text.split(/,\s+|,(?=@)/).map((one) => {
    const pattern = names[one.trim()] ?? one.trim();
    if (pattern.split(/\s+/).length !== 5) throw new Error("not five fields");
    return new Cron(pattern, { paused: true, mode: "5-part" });
  });
}

/** LXD's clients cannot read the text of a later time. @see RFC 3339 */
const yearMax = 9999;

type Unit = "M" | "H" | "d" | "w" | "m" | "y";
const part = /^(\d{1,6})([MHdwmy])$/;

/** @param text Value of `snapshots.expiry`, such as "1M 2H 3d 4w 5m 6y" (minutes, hours, days, weeks, months, years).
 * @returns Why the value is invalid; undefined when it is valid. */
export function expiryProblem(text: string): string | undefined {
  if (!text.trim().split(/\s+/).every((one) => one === "" || part.test(one))) {
    return `Invalid expiry "${text}": numbers with M, H, d, w, m or y, such as "1d 12H", are allowed`;
  }
  const year = expiryAfter(text, new Date())?.getFullYear() ?? 0;
  return year <= yearMax ? undefined : `Invalid expiry "${text}": moments up to the year ${yearMax} are allowed`;
}

/** @returns When a snapshot that was made at `from` expires; undefined means never. */
export function expiryAfter(text: string, from: Date): Date | undefined {
  const parts = text.trim().split(/\s+/).filter(Boolean);
  if (parts.length === 0) return undefined;
  const result = new Date(from);
  for (const one of parts) {
    const [, count, unit] = part.exec(one)!;
    add(result, Number(count), unit as Unit);
  }
  return result;
}

function add(time: Date, count: number, unit: Unit): void {
  switch (unit) {
    case "M":
      return void time.setMinutes(time.getMinutes() + count);
    case "H":
      return void time.setHours(time.getHours() + count);
    case "d":
      return void time.setDate(time.getDate() + count);
    case "w":
      return void time.setDate(time.getDate() + 7 * count);
    case "m":
      return void time.setMonth(time.getMonth() + count);
    case "y":
      return void time.setFullYear(time.getFullYear() + count);
  }
}
