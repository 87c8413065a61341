import { UsageError } from "../client/errors.ts";
import { type Verb, verb } from "../verb.ts";

export const verbs: Verb[] = [
  verb({
    words: "completion",
    args: ["shell"],
    flags: {},
    summary: "Print a completion script for a shell",
    details: `bash, zsh or fish. In ~/.bashrc or ~/.zshrc:
  source <(lido completion bash)
or for all users, from the next login on:
  lido completion bash >/usr/share/bash-completion/completions/lido
  lido completion zsh >/usr/share/zsh/vendor-completions/_lido
  lido completion fish >/usr/share/fish/vendor_completions.d/lido.fish
`,
    async run(io, [shell = ""]) {
      const { scripts } = await import("../completion/scripts.ts");
      const script = Object.hasOwn(scripts, shell) ? scripts[shell] : undefined;
      if (script === undefined) {
        throw new UsageError(`Invalid shell "${shell}": ${Object.keys(scripts).join(", ")} are allowed`);
      }
      io.out(script);
    },
  }),
  verb({
    words: "completion-values",
    args: ["shell", "word..."],
    optionsEndAfter: 1,
    flags: {},
    summary: "Complete a command line; the shells' scripts call it",
    async run(io, [, ...words]) {
      const { complete } = await import("../completion/complete.ts");
      const { files, candidates } = await complete(io.client, words);
      const line = (text: string) => text.replaceAll(/[\t\r\n]/g, " ");
      const lines = candidates.map(({ word, summary }) => summary ? `${line(word)}\t${line(summary)}` : line(word));
      io.out(`${[files ? "files" : "words", ...lines].join("\n")}\n`);
    },
  }),
];
