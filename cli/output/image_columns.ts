/** Columns and filters of `lido image list`. */
import type { Image } from "../../api/types.ts";
import { UsageError } from "../client/errors.ts";
import { showBytes } from "../../api/size.ts";
import { longDate } from "./units.ts";

export interface Column {
  title: string;
  value(image: Image): string;
}

const short = (fingerprint: string) => fingerprint.slice(0, 12);

function shortestAlias({ aliases }: Image): string {
  if (aliases.length === 0) return "";
  const shortest = aliases.map(({ name }) => name).reduce((best, name) => name.length < best.length ? name : best);
  return aliases.length > 1 ? `${shortest} (${aliases.length - 1} more)` : shortest;
}

const letters: Readonly<Record<string, Column>> = {
  a: { title: "ARCHITECTURE", value: (image) => image.architecture },
  d: { title: "DESCRIPTION", value: (image) => image.properties.description ?? "" },
  f: { title: "FINGERPRINT", value: (image) => short(image.fingerprint) },
  F: { title: "FINGERPRINT", value: (image) => image.fingerprint },
  l: { title: "ALIAS", value: shortestAlias },
  L: { title: "ALIASES", value: (image) => image.aliases.map(({ name }) => name).join("\n") },
  p: { title: "PUBLIC", value: (image) => image.public ? "yes" : "no" },
  s: { title: "SIZE", value: (image) => showBytes(image.size) },
  t: { title: "TYPE", value: (image) => image.type.toUpperCase() },
  u: { title: "UPLOAD DATE", value: (image) => longDate(image.uploaded_at) },
};

/** The title for each letter of `--columns`. */
export const columnTitles = (): [letter: string, title: string][] =>
  Object.entries(letters).map(([letter, { title }]) => [letter, title]);

/** @throws {UsageError} For an unknown letter. */
export function columnsOf(text: string): Column[] {
  return text.replaceAll(",", "").split("").map((letter) => {
    const column = letters[letter];
    if (!column) {
      const allowed = Object.keys(letters).join(" ");
      throw new UsageError(`Unknown column shorthand char '${letter}' in '${text}': ${allowed} are allowed`);
    }
    return column;
  });
}

export function matchesImage(image: Image, filters: readonly string[]): boolean {
  return filters.every((filter) => {
    const [, key, value] = /^([\w.-]+)=(.*)$/.exec(filter) ?? [];
    if (key !== undefined) return image.properties[key] === value || (key === "type" && image.type === value);
    return image.fingerprint.startsWith(filter) || image.aliases.some(({ name }) => name.includes(filter));
  });
}
