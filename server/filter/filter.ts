import { LidoError, messageOf } from "../../api/errors.ts";
import { compilePattern } from "./pattern.ts";

/** LXD's filter language: `[not] FIELD eq|ne VALUE`, joined by `and` and `or` and read from left to right. A field is a path ("config.user.note",
 * "devices.root.pool"), a value a pattern that the whole field must match, in quotes when it has blanks. `FIELD=VALUE` is short for eq.
 * @see https://documentation.ubuntu.com/lxd/en/latest/rest-api/#filtering */

const clausesMax = 100;

interface Clause {
  readonly joinedBy: "and" | "or";
  readonly isNegated: boolean;
  readonly path: string;
  readonly test: (text: string) => boolean;
}

/** @param filter As in the query; absent lets every item pass.
 * @returns The items that pass. @throws {LidoError} bad_request with LXD's texts. */
export function filterBy<T extends object>(items: T[], filter: string | undefined): T[] {
  if (!filter?.trim()) return items;
  const clauses = parseFilter(filter);
  return items.filter((item) =>
    clauses.reduce((passes, { joinedBy, isNegated, path, test }) => {
      const value = textOf(valueAt(item, path));
      const matches = (value !== undefined && test(value)) !== isNegated;
      return joinedBy === "and" ? passes && matches : passes || matches;
    }, true)
  );
}

function parseFilter(filter: string): Clause[] {
  const words = wordsOf(filter);
  const clauses: Clause[] = [];
  let joinedBy: Clause["joinedBy"] = "and";
  for (let index = 0; index < words.length;) {
    let isNegated = false;
    if (isWord(words[index], "not")) {
      isNegated = true;
      if (++index >= words.length) throw invalid("incomplete not clause");
    }
    const short = /^([\w.-]+)=(.*)$/s.exec(words[index]!.text);
    const [path, operator, value] = short
      ? [short[1]!, "eq", short[2]!]
      : [words[index]!.text, words[index + 1]?.text, words[index + 2]?.text];
    if (operator === undefined) throw invalid("clause has no operator");
    if (value === undefined) throw invalid("clause has no value");
    if (!/^(eq|ne)$/i.test(operator)) throw invalid(`unknown operator "${operator}": eq and ne are allowed`);
    clauses.push({ joinedBy, isNegated: isNegated !== /^ne$/i.test(operator), path, test: patternOf(value) });
    if (clauses.length > clausesMax) throw invalid(`more than ${clausesMax} clauses`);
    index += short ? 1 : 3;
    if (index >= words.length) break;
    const joint = words[index]!.text.toLowerCase();
    if (joint !== "and" && joint !== "or") throw invalid("invalid clause composition");
    joinedBy = joint;
    if (++index >= words.length) throw invalid("unterminated compound clause");
  }
  return clauses;
}

interface Word {
  readonly text: string;
  readonly isQuoted: boolean;
}

function wordsOf(filter: string): Word[] {
  const words: Word[] = [];
  // Quotes may enclose a whole word, or the value after "=".
  const pattern = /\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]*)"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)|\s*(\S)|\s+$/gs;
  for (const [all, quoted, before, behind, plain, odd] of filter.matchAll(pattern)) {
    if (odd !== undefined) throw invalid("unterminated quote");
    if (all.trim() === "") continue;
    const unescape = (text: string) => text.replaceAll(/\\(["\\])/g, "$1");
    if (plain !== undefined) words.push({ text: plain, isQuoted: false });
    else words.push({ text: (before ?? "") + unescape(quoted ?? behind ?? ""), isQuoted: true });
  }
  return words;
}

function isWord(word: Word | undefined, text: string): boolean {
  return word !== undefined && !word.isQuoted && word.text.toLowerCase() === text;
}

function patternOf(value: string): (text: string) => boolean {
  try {
    return compilePattern(value);
  } catch (error) {
    throw invalid(`the value "${value}" is no pattern: ${messageOf(error)}`);
  }
}

/** Keys may have dots themselves, so each beginning of the path is tried. */
function valueAt(item: unknown, path: string): unknown {
  if (item === null || typeof item !== "object" || Array.isArray(item)) return undefined;
  const map = item as Record<string, unknown>;
  if (Object.hasOwn(map, path)) return map[path];
  for (let dot = path.indexOf("."); dot > 0; dot = path.indexOf(".", dot + 1)) {
    const key = path.slice(0, dot);
    const found = Object.hasOwn(map, key) ? valueAt(map[key], path.slice(dot + 1)) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

function textOf(value: unknown): string | undefined {
  return value === null || value === undefined || typeof value === "object" ? undefined : String(value);
}

function invalid(why: string): LidoError {
  return new LidoError("bad_request", `Invalid filter: ${why}`);
}
