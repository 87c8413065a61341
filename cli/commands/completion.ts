import { UsageError } from "../client/errors.ts";
import { nouns } from "../nouns.ts";
import { flagName, type Verb, verb } from "../verb.ts";

const shells = ["bash", "zsh", "fish"];

/** What stands at an argument's place, and the query that lists it. */
const lists: Readonly<Record<string, string>> = {
  instance: "/1.0/instances",
  pool: "/1.0/storage-pools",
  image: "/1.0/images/aliases",
  profile: "/1.0/profiles",
};

async function allVerbs(): Promise<Verb[]> {
  const modules = await Promise.all(Object.values(nouns).map((noun) => noun.load()));
  return [...new Set(modules.flatMap(({ verbs }) => verbs))];
}

/** One line for each verb: its words, its flags, and what its arguments are. */
function rows(verbs: readonly Verb[]): string[] {
  return verbs.flatMap((one) =>
    [one.words, ...one.aliases ?? []].map((words) => {
      const flags = [...Object.entries(one.flags).map(([key]) => `--${flagName(key)}`), "--help"].join(" ");
      const kinds = one.args.map((name) => lists[name.replace(/(\?|\.\.\.|\+)$/, "")] ?? "-").join(" ");
      return `${words}|${flags}|${kinds}`;
    })
  ).sort();
}

/** The table is data, and one function reads it: the longest verb that the words begin with, then its next argument. */
function bash(table: readonly string[]): string {
  return `# lido completion for bash: source <(lido completion bash)
_lido_verbs='${table.join("\n")}'
_lido() {
  local line words flags kinds best= bestflags= bestkinds= typed i n next
  local current=\${COMP_WORDS[COMP_CWORD]}
  local -a given=() list=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    [ "\${COMP_WORDS[i]}" = -- ] && return
    [[ \${COMP_WORDS[i]} == -* ]] || given+=("\${COMP_WORDS[i]}")
  done
  typed="\${given[*]}"
  while IFS='|' read -r words flags kinds; do
    if [[ "$typed " == "$words "* && \${#words} -gt \${#best} ]]; then best=$words bestflags=$flags bestkinds=$kinds; fi
  done <<<"$_lido_verbs"
  if [ -z "$best" ]; then
    n=\${#given[@]}
    while IFS='|' read -r words flags kinds; do
      [[ -z $typed || "$words" == "$typed "* ]] || continue
      read -ra next <<<"$words"
      list+=("\${next[n]}")
    done <<<"$_lido_verbs"
  elif [[ $current == -* ]]; then
    list=($bestflags)
  else
    read -ra words <<<"$best"
    read -ra kinds <<<"$bestkinds"
    i=$((\${#given[@]} - \${#words[@]}))
    next=\${kinds[i]:-\${kinds[-1]:--}}
    [ "$next" = - ] || list=($(lido query "$next" 2>/dev/null | sed -n 's|.*"/1.0/.*/\\([^/"]*\\)".*|\\1|p'))
  fi
  COMPREPLY=($(compgen -W "\${list[*]}" -- "$current"))
}
complete -o default -F _lido lido
`;
}

function zsh(table: readonly string[]): string {
  return `#compdef lido
# lido completion for zsh: source <(lido completion zsh)
autoload -Uz bashcompinit && bashcompinit
${bash(table)}`;
}

function fish(verbs: readonly Verb[]): string {
  const lines = verbs.flatMap((one) => {
    const parts = one.words.split(" ");
    const before = parts.slice(0, -1);
    const condition = before.length === 0
      ? "__fish_use_subcommand"
      : `string match -q -- '${before.join(" ")}' (commandline -opc | tail -n +2 | string join ' ')`;
    const quoted = (text: string) => `'${text.replaceAll("'", "\\'")}'`;
    const inside = `string match -q -- '${one.words}*' (commandline -opc | tail -n +2 | string join ' ')`;
    return [
      `complete -c lido -f -n ${quoted(condition.replaceAll("'", '"'))} -a ${parts.at(-1)} -d ${quoted(one.summary)}`,
      ...Object.entries(one.flags).map(([key, flag]) =>
        `complete -c lido -f -n ${quoted(inside.replaceAll("'", '"'))} -l ${flagName(key)}${
          flag.short ? ` -s ${flag.short}` : ""
        }${flag.value === undefined ? "" : " -r"} -d ${quoted(flag.summary)}`
      ),
    ];
  });
  const groups = Object.entries(nouns).map(([name, { summary }]) =>
    `complete -c lido -f -n __fish_use_subcommand -a ${name} -d '${summary.replaceAll("'", "\\'")}'`
  );
  return `# lido completion for fish: lido completion fish | source\n${[...groups, ...lines].join("\n")}\n`;
}

export const verbs: Verb[] = [verb({
  words: "completion",
  args: ["shell"],
  flags: {},
  summary: "Print a completion script for a shell",
  details: `bash, zsh or fish; in ~/.bashrc:
  source <(lido completion bash)
`,
  async run(io, [shell = ""]) {
    if (!shells.includes(shell)) throw new UsageError(`Invalid shell "${shell}": ${shells.join(", ")} are allowed`);
    const all = await allVerbs();
    io.out(shell === "fish" ? fish(all) : shell === "zsh" ? zsh(rows(all)) : bash(rows(all)));
  },
})];
