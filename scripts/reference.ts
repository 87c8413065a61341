/** Writes docs/reference from the tables of the code: `npm run reference`. A test fails when a page has drifted from them. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { commandsPage } from "./reference/commands.ts";
import { configurationPage } from "./reference/configuration.ts";
import { eventsPage } from "./reference/events.ts";
import { extensionsPage } from "./reference/extensions.ts";
import { journalPage } from "./reference/journal.ts";
import { page, paragraph, table } from "./reference/markdown.ts";

const subjects: Readonly<Record<string, readonly [subject: string, make: () => string | Promise<string>]>> = {
  "api-extensions.md": ["API extensions, our own and LXD's", extensionsPage],
  "commands.md": ["Every command with its options", commandsPage],
  "configuration.md": [
    "Configuration keys of the server, instances, profiles, devices, pools and volumes",
    configurationPage,
  ],
  "events.md": ["Types of events, and the actions of lifecycle events", eventsPage],
  "journal.md": ["Kinds of intents in the journal", journalPage],
};

function index(): string {
  return page(
    "Reference",
    paragraph(
      "These pages are made from the tables that the code itself uses, by `npm run reference`; a test fails when they " +
        "differ. The REST API is described in [openapi.json](../../openapi.json).",
    ),
    paragraph(
      "The build makes a man page of each command in dist/man: `man -l dist/man/lido-exec.1` shows one, and " +
        "`install -m 644 dist/man/*.1 /usr/local/share/man/man1/` makes `man lido` find them.",
    ),
    table(["Page", "What it has"], Object.entries(subjects).map(([name, [text]]) => [`[${name}](${name})`, text])),
  );
}

/** @returns The text of each page, by the name of its file in docs/reference. */
export async function referencePages(): Promise<Map<string, string>> {
  const pages = new Map([["README.md", index()]]);
  for (const [name, [, make]] of Object.entries(subjects)) pages.set(name, await make());
  return pages;
}

if (import.meta.main) {
  const directory = join(dirname(fileURLToPath(import.meta.url)), "../docs/reference");
  mkdirSync(directory, { recursive: true });
  for (const [name, text] of await referencePages()) writeFileSync(join(directory, name), text);
}
