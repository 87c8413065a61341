import type { z } from "zod";

type Issue = z.core.$ZodIssue;

/** How much of a refused value is shown, in characters. */
const shownMax = 80;

/** Names of types, for texts of what is required. */
const names: Readonly<Record<string, string>> = {
  string: "a string",
  number: "a number",
  int: "an integer",
  boolean: "a boolean",
  object: "an object",
  record: "an object",
  array: "a list",
  date: "a time",
  null: "null",
};

export interface Refusal {
  /** Path such as `source.type`; empty for the value as a whole. */
  readonly field: string;
  /** What is allowed there, and what was given: `an object is required, not a number`. */
  readonly reason: string;
}

/** Why a schema refused a value, in words for people: zod's own text does not name the value, and not always what is allowed.
 * @param value As it was given; a null in it counts as absent. */
export function refusal(error: z.ZodError, value: unknown): Refusal {
  const issue = error.issues[0]!;
  const given = issue.path.reduce<unknown>(
    (whole, name) => typeof whole === "object" ? (whole as Record<PropertyKey, unknown> | null)?.[name] : undefined,
    value,
  );
  const shown = given === undefined || given === null || issue.code === "unrecognized_keys"
    ? ""
    : shownAs(given, issue);
  return { field: issue.path.map(String).join("."), reason: required(issue) + (shown && `, not ${shown}`) };
}

/** A value of the wrong type may be a secret (`environment`): only its type is shown. */
function shownAs(value: unknown, { code }: Issue): string {
  if (Array.isArray(value) || typeof value === "object") return named(Array.isArray(value) ? "array" : "object");
  if (code === "invalid_type" || code === "invalid_union") return named(typeof value);
  const text = JSON.stringify(value);
  return text.length > shownMax ? `${text.slice(0, shownMax)}…` : text;
}

function required(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return `${named(issue.expected)} is required`;
    case "invalid_value":
      return `${either(issue.values.map(String))} is allowed`;
    case "too_small":
      return limited(issue.origin, "at least", issue.minimum);
    case "too_big":
      return limited(issue.origin, "at most", issue.maximum);
    case "unrecognized_keys":
      return `it has the unknown ${issue.keys.map((key) => JSON.stringify(key)).join(", ")}`;
    case "invalid_union": {
      const branches = issue.errors.flatMap(([first]) => first ? [first] : []);
      const types = branches.flatMap((one) => one.code === "invalid_type" ? [named(one.expected)] : []);
      return types.length > 0 && types.length === branches.length ? `${either(types)} is required` : issue.message;
    }
    default:
      return issue.message;
  }
}

function named(type: string): string {
  return names[type] ?? type;
}

function limited(origin: string, bound: string, limit: number | bigint): string {
  if (origin === "string") return `${bound} ${limit} ${limit === 1 ? "character is" : "characters are"} allowed`;
  if (origin === "array") return `${bound} ${limit} ${limit === 1 ? "entry is" : "entries are"} allowed`;
  return `${bound} ${limit} is allowed`;
}

function either(words: readonly string[]): string {
  const unique = [...new Set(words)];
  return unique.length < 2 ? unique.join() : `${unique.slice(0, -1).join(", ")} or ${unique.at(-1)}`;
}
