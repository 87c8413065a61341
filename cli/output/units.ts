/** Dates as lxc writes them. */

/** Whether a date means "never": Go's zero time and the epoch. */
export function isUnsetDate(date: string | null | undefined): boolean {
  return date === null || date === undefined || date === "" || new Date(date).getTime() <= 0;
}

const two = (value: number) => String(value).padStart(2, "0");

/** `2026/11/24 11:55 UTC`, in the local zone; empty when the date is unset. */
export function shortDate(date: string | null | undefined): string {
  if (isUnsetDate(date)) return "";
  const at = new Date(date ?? 0);
  const day = `${at.getFullYear()}/${two(at.getMonth() + 1)}/${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())} ${zone(at)}`;
}

/** `Nov 23, 2026 at 5:09pm (UTC)`, as image dates are shown. */
export function longDate(date: string | null | undefined): string {
  if (isUnsetDate(date)) return "-";
  const at = new Date(date ?? 0);
  const month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][at.getMonth()];
  const hour = at.getHours() % 12 || 12;
  const half = at.getHours() < 12 ? "am" : "pm";
  return `${month} ${at.getDate()}, ${at.getFullYear()} at ${hour}:${two(at.getMinutes())}${half} (${zone(at)})`;
}

/** The zone's short name. */
function zone(at: Date): string {
  if (at.getTimezoneOffset() === 0) return "UTC";
  return /\(?([A-Z]{2,5}|GMT[+-]\d+)\)?$/.exec(at.toLocaleTimeString("en-US", { timeZoneName: "short" }))?.[1] ?? "UTC";
}
