/** The page of the journal's kinds, from the table that intents are declared by. */
import { intentKinds } from "../../server/journal/kinds.ts";
import { byFirst, code, page, paragraph, table } from "./markdown.ts";

export function journalPage(): string {
  return page(
    "Kinds of intents in the journal",
    paragraph(
      "Before the daemon changes the host it writes down an intent, and closes it in the transaction that records the " +
        "result. An intent that is open after a failure, or at the daemon's start after it was killed, is settled. What " +
        "each operation looks at before, and what it locks, is in [operations.md](../operations.md).",
    ),
    table(
      ["Kind", "While it is open", "When it was settled"],
      byFirst(
        Object.entries(intentKinds).map(([kind, { work, settled }]) => [code(kind), `${work}.`, settled]),
      ),
    ),
  );
}
