/** Checks what the documents refer to: files of the repository, headings, other documents. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
/** Folders that documents may refer to; without built ones, which a clone does not have. */
const rooms = ["api", "cli", "docs", "drivers", "examples", "scripts", "server", "tests"];
const documents = [
  ...readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md")).map((name) => join("docs", name)),
  ...["drivers/host", "drivers/runtime", "server", "tests"].map((room) => join(room, "README.md")),
  "README.md",
  "SECURITY.md",
].sort();
const texts = new Map(documents.map((path) => [path, readFileSync(join(root, path), "utf8")]));
const baseNames = new Set([
  ...readdirSync(root),
  ...rooms.flatMap((room) => readdirSync(join(root, room), { recursive: true }).map((name) => basename(String(name)))),
]);

/** Words of code blocks and of code spans; backticks within a block do not mark spans. */
function wordsOf(text: string): string[] {
  const spans = [...text.matchAll(/^```[^\n]*\n([\s\S]*?)^```/gm), ...withoutBlocks(text).matchAll(/`([^`\n]+)`/g)];
  return spans.flatMap(([, code]) => code!.split(/[\s"'(),;]+/)).filter((word) => word !== "");
}

function withoutBlocks(text: string): string {
  return text.replaceAll(/^```[^\n]*\n[\s\S]*?^```/gm, "");
}

/** @returns Whether a word that looks like a path of the repository exists; true for all other words. */
function isThere(word: string): boolean {
  const path = word.replace(/[.:]+$/, "");
  const [room] = path.split("/");
  if (!rooms.includes(room!) || !path.includes("/")) {
    return !/^[a-z0-9_]+(_test)?\.ts$/.test(path) || baseNames.has(path);
  }
  if (!/^[\w./*-]+$/.test(path)) return true;
  if (!path.includes("*")) return existsSync(join(root, path));
  const pattern = new RegExp(`^${path.replaceAll(".", "\\.").replaceAll("*", "[^/]*")}$`);
  const folder = path.slice(0, path.indexOf("*")).replace(/[^/]*$/, "");
  return existsSync(join(root, folder)) &&
    readdirSync(join(root, folder), { recursive: true }).some((name) => pattern.test(folder + String(name)));
}

Deno.test("every path of the repository that the documents name is there", () => {
  const wrong = [...texts].flatMap(([document, text]) =>
    [...new Set(wordsOf(text))].filter((word) => !isThere(word)).map((word) => `${document}: ${word}`)
  );
  assert.deepEqual(wrong, []);
});

Deno.test("a path that is not there is found, in text, in code blocks and by a pattern", () => {
  const words = wordsOf(
    "See `server/none.ts`, `none_at_all.ts`.\n```sh\nnpm test tests/none_test.ts\n```\n`drivers/*/none`",
  );
  assert.deepEqual(words.filter((word) => !isThere(word)), [
    "tests/none_test.ts",
    "server/none.ts",
    "none_at_all.ts",
    "drivers/*/none",
  ]);
  assert.equal(["server/main.ts", "docs/*.md", "main.ts", "https://api/x.ts", "a/b"].every(isThere), true);
});

/** The anchors of a document's headings, as GitHub makes them. */
function anchorsOf(text: string): string[] {
  return [...withoutBlocks(text).matchAll(/^#+ (.+)$/gm)].map(([, title]) =>
    title!.toLowerCase().replaceAll(/[^\w\- ]/g, "").trim().replaceAll(" ", "-")
  );
}

Deno.test("every link within the repository leads to a file, and to a heading that it has", () => {
  const wrong: string[] = [];
  for (const [document, text] of texts) {
    for (const [, target] of withoutBlocks(text).matchAll(/\[[^\]]*\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue;
      const [path = "", anchor] = target!.split("#");
      const file = path === "" ? document : normalize(join(dirname(document), path));
      if (!existsSync(join(root, file))) wrong.push(`${document}: ${target}`);
      else if (anchor !== undefined && statSync(join(root, file)).isFile()) {
        const anchors = anchorsOf(readFileSync(join(root, file), "utf8"));
        if (!anchors.includes(anchor)) wrong.push(`${document}: ${target}: no such heading`);
      }
    }
  }
  assert.deepEqual(wrong, []);
});

Deno.test("the README leads to every document", () => {
  const linked = [...texts.get("README.md")!.matchAll(/\]\((docs\/[^)#]+)/g)].map(([, path]) => path);
  const all = documents.filter((path) => path.startsWith("docs/"));
  assert.deepEqual(all.filter((path) => !linked.includes(path)), []);
});

Deno.test("every test that a document names is in the file that it names", () => {
  const wrong: string[] = [];
  let named = 0;
  for (const [document, text] of texts) {
    const plain = text.replaceAll(/\s+/g, " ");
    // `tests/x_test.ts` "one name" and "another"
    for (const [, file, names] of plain.matchAll(/`([\w./]+_test\.ts)`,? ((?:"[^"]+"(?:,? and |, )?)+)/g)) {
      if (!file!.includes("/") || !existsSync(join(root, file!))) continue;
      const source = readFileSync(join(root, file!), "utf8");
      for (const [, name] of names!.matchAll(/"([^"]+)"/g)) {
        named++;
        const parts = name!.split("…").map((part) => part.trim()).filter((part) => part !== "");
        if (!parts.every((part) => source.includes(part))) wrong.push(`${document}: ${file}: ${name}`);
      }
    }
  }
  assert.ok(named > 40, `${named} were found`);
  assert.deepEqual(wrong, []);
});

/** Names of code, recognized by an inner capital: `AlreadyThere`, `Journal.recover`, `settleBefore()`. */
const isIdentifier = (word: string) => /^\w+(\.\w+)?(\(\))?$/.test(word) && /[a-z][A-Z]/.test(word);

Deno.test("names of code in the documents are names in the code", () => {
  const code = ["api", "cli", "drivers", "server", "tests"].flatMap((room) =>
    readdirSync(join(root, room), { recursive: true }).map((name) => join(root, room, String(name)))
  ).filter((path) => path.endsWith(".ts") && path !== fileURLToPath(import.meta.url))
    .map((path) => readFileSync(path, "utf8")).join("\n");
  const wrong = [...texts].filter(([document]) => document.startsWith("docs/")).flatMap(([document, text]) =>
    [...withoutBlocks(text).matchAll(/`([^`\n]+)`/g)].map(([, word]) => word!).filter(isIdentifier)
      .filter((word) => !word.replace("()", "").split(".").every((part) => code.includes(part)))
      .map((word) => `${document}: ${word}`)
  );
  assert.deepEqual(wrong, []);
});
