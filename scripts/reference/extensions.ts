/** The page of the API extensions, from the lists that `GET /1.0` advertises. */
import { extensions, ownExtensions } from "../../api/extensions.ts";
import { code, page, paragraph } from "./markdown.ts";

export function extensionsPage(): string {
  const own = Object.entries(ownExtensions).sort(([left], [right]) => left < right ? -1 : 1);
  const fromLxd = extensions.filter((name) => !Object.hasOwn(ownExtensions, name)).sort();
  return page(
    "API extensions",
    paragraph(
      "What `api_extensions` of `GET /1.0` lists. A client looks there before it uses what not every server has. The whole " +
        "API is in [openapi.json](../../openapi.json).",
    ),
    "## Our own",
    "LXD does not have these.",
    ...own.flatMap(([name, text]) => [`### ${name}`, paragraph(text)]),
    "## LXD's",
    paragraph("With LXD's meaning, which its documentation (`doc/api-extensions.md`) tells."),
    paragraph(`${fromLxd.map(code).join(", ")}.`),
  );
}
