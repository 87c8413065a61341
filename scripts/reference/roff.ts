/** Man pages in roff. @see man(7), groff_man(7) */

const special: Readonly<Record<string, string>> = {
  "\\": "\\(rs",
  "-": "\\-",
  "'": "\\(aq",
  "`": "\\(ga",
  "^": "\\(ha",
  "~": "\\(ti",
  '"': "\\(dq",
};

/** @returns Text that is shown as it is, wherever it stands. */
export function text(plain: string): string {
  const escaped = plain.replace(/[\\'`^~"-]/g, (character) => special[character]!);
  // A line that begins with a dot is a request.
  return escaped.replace(/^\./gm, "\\&.");
}

export const bold = (plain: string) => `\\fB${text(plain)}\\fR`;
export const italic = (plain: string) => `\\fI${text(plain)}\\fR`;

export const heading = (title: string) => `.SH ${text(title)}`;
export const paragraph = (plain: string) => `.PP\n${text(plain)}`;

/** Lines that stay lines. */
export const example = (plain: string) => `.PP\n.nf\n${text(plain.trimEnd())}\n.fi`;

/** @param entries What is described, and its description. */
export const list = (entries: readonly (readonly [name: string, description: string])[]) =>
  entries.map(([name, description]) => `.TP\n${bold(name)}\n${text(description)}`).join("\n");

/** Another page. */
export const reference = (name: string) => `${bold(name)}(1)`;

export function manPage(name: string, summary: string, version: string, parts: readonly string[]): string {
  const head = `.TH ${text(name.toUpperCase())} 1 "" "lido ${text(version)}" "lido"`;
  return [
    '.\\" Made by scripts/man.ts from the tables of the commands.',
    head,
    // Names of commands are not hyphenated, nor spread over the line.
    ".nh",
    ".ad l",
    heading("NAME"),
    `${text(name)} \\- ${text(summary)}`,
    ...parts,
  ].join("\n") + "\n";
}
