import assert from "node:assert/strict";
import { findVerb, parse } from "./parse.ts";
import { readWithCommander } from "./program.ts";
import { verb } from "./verb.ts";

const run = () => Promise.resolve();
const exec = verb({
  words: "exec",
  args: ["instance?", "command..."],
  optionsEndAfter: 2,
  flags: { user: { value: "user", summary: "" }, list: { summary: "" } },
  summary: "",
  run,
});
const create = verb({ words: "storage create", args: ["pool", "driver"], flags: {}, summary: "", run });

function parsed(...words: string[]) {
  const found = findVerb([exec, create], words);
  const { args, flags, quiet } = (found && parse(found.verb, found.rest)) ?? assert.fail("not well-formed");
  return { args, flags, quiet };
}

Deno.test("options behind the first word of a command are the command's", () => {
  const none = { user: undefined, list: false };
  assert.deepEqual(parsed("exec", "c1", "ls", "-la", "-q"), {
    args: ["c1", "ls", "-la", "-q"],
    flags: none,
    quiet: false,
  });
  assert.deepEqual(parsed("exec", "c1", "sh", "--", "--user").args, ["c1", "sh", "--", "--user"]);
  assert.deepEqual(parsed("exec", "c1", "--", "-x", "--list").args, ["c1", "-x", "--list"]);
  const { args, flags } = parsed("exec", "--list", "c1", "--user", "u", "ls", "--user=v");
  assert.deepEqual([args, flags], [["c1", "ls", "--user=v"], { user: "u", list: true }]);
});

Deno.test("--quiet stands anywhere before or behind the words of a verb", () => {
  for (const words of ["storage -q create p dir", "storage create p --quiet dir", "storage create p dir -q"]) {
    assert.deepEqual(parsed(...words.split(" ")), { args: ["p", "dir"], flags: {}, quiet: true }, words);
  }
  assert.equal(parsed("storage", "create", "p", "dir").quiet, false);
});

Deno.test("help shows what a person may give: no defaults that are empty, no hidden options, no help on a word of a verb", () => {
  const one = verb({
    words: "storage create",
    args: ["pool"],
    flags: {
      cwd: { value: "path", initial: "", summary: "Where to" },
      own: { hidden: true, summary: "Of the program" },
    },
    summary: "Create",
    run,
  });
  const help = readWithCommander([one], ["storage", "create", "--help"]).help ?? "";
  assert.match(
    help,
    /^Usage: lido storage create \[options\] <pool>\n\nCreate\n\nOptions:\n {2}--cwd <path> {2}Where to\n/,
  );
  assert.doesNotMatch(help, /default|--own|Commands/);
  assert.match(readWithCommander([one], ["storage", "--help"]).help ?? "", /Commands:[^]*help \[command\]/);
  // Commander reads what the fast parser leaves to it, with the same outcome.
  assert.deepEqual(readWithCommander([one], ["storage", "create", "p"]).parsed?.flags, { cwd: "", own: false });
});
