/** The page of the events, from the table that the daemon publishes them by. */
import { eventTypes, lifecycleActions, sources } from "../../server/events/actions.ts";
import { byFirst, code, page, paragraph, table } from "./markdown.ts";

interface Action {
  readonly help: string;
  readonly context?: readonly string[];
  readonly isOwn?: true;
}

export function eventsPage(): string {
  const actions = Object.entries<Action>(lifecycleActions);
  /** An action belongs to the longest name that it begins with. */
  const thingOf = (action: string) =>
    Object.keys(sources).filter((name) => action.startsWith(`${name}-`)).sort((a, b) => b.length - a.length)[0];
  const own = actions.filter(([, { isOwn }]) => isOwn).map(([action]) => code(action));
  return page(
    "Events",
    paragraph(
      "`GET /1.0/events` is a websocket that tells what happens, one JSON object a message: `type`, `timestamp`, " +
        "`metadata`, `project` and `location`. `?type=` chooses types, separated by commas; `lido monitor` shows them.",
    ),
    table(["Type", "What it tells"], byFirst(Object.entries(eventTypes).map(([type, help]) => [code(type), help]))),
    "## Lifecycle actions",
    paragraph(
      `The names are LXD's, except ${
        own.join(", ")
      }, which LXD does not have. The context has no more than the fields ` +
        "that are named, and may lack those that do not apply.",
    ),
    ...Object.entries(sources).flatMap(([thing, source]) => [
      `### ${thing}`,
      `\`source\`: \`${source}\``,
      table(
        ["Action", "Context", "What happened"],
        byFirst(
          actions.filter(([action]) => thingOf(action) === thing).map(([action, { help, context = [] }]) => [
            code(action),
            context.map(code).join(", "),
            help,
          ]),
        ),
      ),
    ]),
  );
}
