import { isScalar, parseDocument, visit } from "yaml";

/** YAML that may be made to keep its reader busy. The library compares each key with all others, recurses with the nesting until the stack is full,
 * shows the line of each error, and keeps everything it has parsed: 300 kB of keys took half a minute, 400 kB of brackets a gigabyte. */

/** Deeper than any legitimate document. */
const depthMax = 100;
/** Limit on the different indentations of lines, those within texts included. */
const indentsMax = 300;
/** Limit on lines, items and values: about a second of parsing. A volume with thousands of snapshots has fewer. */
const partsMax = 60_000;
const compactNesting = new RegExp(`^[ \\t]*(?:[-?:][ \\t]+){${depthMax}}`, "m");

/** @param text The caller limits its size. @param aliasesMax Limit on the aliases in it. @returns A JSON value.
 * @throws {Error} With the reason in its first line. */
export function parseHostileYaml(text: string, { aliasesMax = 100 } = {}): unknown {
  refuseCostly(text);
  const document = parseDocument(text, { uniqueKeys: false, prettyErrors: false, logLevel: "error" });
  if (document.errors[0]) throw placed(document.errors[0], text);
  let aliases = 0;
  visit(document, {
    Alias: () => {
      if (++aliases > aliasesMax) throw new Error(`It has more than ${aliasesMax} aliases`);
    },
    Map: (_, { items }) => {
      const seen = new Set<unknown>();
      for (const { key } of items) {
        if (!isScalar(key)) throw new Error("A key is no scalar");
        if (seen.has(key.value)) throw new Error(`Map keys must be unique: ${JSON.stringify(key.value)}`);
        seen.add(key.value);
      }
    },
  });
  return document.toJS({ maxAliasCount: 10 });
}

/** Characters that begin or end an item, or may each cause another error. */
const indicators = new Set([..."\n,[]{}&*!|>%@`\\'\""].map((character) => character.charCodeAt(0)));
const [newline, space, tab, open, close, openMap, closeMap, dash, colon, question] = [..."\n \t[]{}-:?"]
  .map((character) => character.charCodeAt(0));

/** Refuses text that is costly to parse. Characters within quoted texts count, too: legitimate ones with hundreds of brackets close them. */
function refuseCostly(text: string): void {
  let depth = 0, deepest = 0, parts = 0, lineStart = 0;
  const indents = new Set<number>();
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === open || code === openMap) deepest = Math.max(deepest, ++depth);
    else if ((code === close || code === closeMap) && depth > 0) depth--;
    if (code === newline) lineStart = at + 1;
    else if (code !== space && lineStart >= 0) {
      indents.add(at - lineStart);
      lineStart = -1;
    }
    if (indicators.has(code)) parts++;
    else if (code === dash || code === colon || code === question) {
      const next = text.charCodeAt(at + 1);
      if (next === space || next === newline || next === tab) parts++;
    }
  }
  if (deepest > depthMax || indents.size > indentsMax || compactNesting.test(text)) {
    throw new Error(`It is nested more than ${depthMax} deep`);
  }
  if (parts > partsMax) throw new Error(`It has ${parts} parts, ${partsMax} are allowed`);
}

function placed(
  { message, pos: [at] }: { readonly message: string; readonly pos: readonly [number, number] },
  text: string,
): Error {
  const before = text.slice(0, at), line = before.split("\n").length;
  return new Error(`${message} at line ${line}, column ${at - before.lastIndexOf("\n")}`);
}
