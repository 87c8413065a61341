/** Completion in real shells: the command line after a TAB. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { command } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { Terminal } from "../../support/terminal.ts";

/** The typed line, and the line after TAB. */
const cases: readonly (readonly [string, string])[] = [
  ["lido stor", "lido storage"],
  ["lido storage sh", "lido storage show"],
  ["lido storage volume sn", "lido storage volume snapshot"],
  ["lido image al", "lido image alias"],
  ["lido -q storage volume att", "lido -q storage volume attach"],
  ["lido storage show pl", "lido storage show plain"],
  ["lido list --form", "lido list --format"],
  ["lido list --format=js", "lido list --format=json"],
  ["lido list -f ya", "lido list -f yaml"],
  ["lido exec --mode int", "lido exec --mode interactive"],
  ["lido exec web", "lido exec web-run"],
  ["lido list web-r", "lido list web-run"],
  ["lido start web", "lido start web-off"],
  ["lido delete web-off/", "lido delete web-off/before"],
  ["lido restore web-off b", "lido restore web-off before"],
  ["lido storage create new bt", "lido storage create new btrfs"],
  ["lido storage create new dir so", "lido storage create new dir source="],
  ["lido storage create new btrfs source.wipe=t", "lido storage create new btrfs source.wipe=true"],
  ["lido storage volume show plain da", "lido storage volume show plain data"],
  ["lido storage volume attach plain d", "lido storage volume attach plain data"],
  ["lido storage volume attach plain data web-r", "lido storage volume attach plain data web-run"],
  ["lido storage volume restore plain data m", "lido storage volume restore plain data monday"],
  ["lido storage volume copy plain/d", "lido storage volume copy plain/data"],
  ["lido storage volume export --compression zs", "lido storage volume export --compression zstd"],
  ["lido query -X PA", "lido query -X PATCH"],
  ["lido storage volume file pull plain data/no", "lido storage volume file pull plain data/note"],
  ["lido launch b", "lido launch bb"],
  ["lido launch bb x -s pl", "lido launch bb x -s plain"],
  ["lido launch bb x -c boot.autostart=t", "lido launch bb x -c boot.autostart=true"],
  ["lido config set web-run security.priv", "lido config set web-run security.privileged="],
  ["lido config set web-run security.privileged=f", "lido config set web-run security.privileged=false"],
  ["lido config set web-run security.privileged f", "lido config set web-run security.privileged false"],
  ["lido config set core.https_ad", "lido config set core.https_address="],
  ["lido config unset web-run user.n", "lido config unset web-run user.note"],
  ["lido config device get web-run sto", "lido config device get web-run store"],
  ["lido config device get web-run store so", "lido config device get web-run store source"],
  ["lido config device add web-run d di", "lido config device add web-run d disk"],
  ["lido config device add web-run d disk prop", "lido config device add web-run d disk propagation="],
  [
    "lido config device add web-run d disk pool=plain source=d",
    "lido config device add web-run d disk pool=plain source=data",
  ],
  ["lido profile device remove default r", "lido profile device remove default root"],
  ["lido profile show def", "lido profile show default"],
  ["lido image import ./some", "lido image import ./some-file.tar"],
  ["lido daemon --con", "lido daemon --con"], // the program's own
  ["lido completion zs", "lido completion zsh"],
  ["lido help waitr", "lido help waitready"],
  ["lido exec web-run -- l", "lido exec web-run -- l"],
];

class Place implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), "lido-completion-"));
  readonly bin = join(this.directory, "bin");

  constructor() {
    mkdirSync(this.bin);
    symlinkSync(executable, join(this.bin, "lido"));
    writeFileSync(join(this.directory, "some-file.tar"), "");
  }

  environment(lidoDirectory: string): Record<string, string> {
    const { directory, bin } = this;
    // Keep the user's configuration out, and use a terminal without line drawing.
    return {
      PATH: `${bin}:${process.env.PATH}`,
      HOME: directory,
      ZDOTDIR: directory,
      XDG_CONFIG_HOME: directory,
      XDG_DATA_HOME: directory,
      XDG_CACHE_HOME: directory,
      TERM: "dumb",
      // zsh uses vi's keys if one of these names it.
      EDITOR: "",
      VISUAL: "",
      LIDO_DIR: lidoDirectory,
    };
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true });
  }
}

const shells: Readonly<Record<string, { readonly argv: readonly string[]; readonly setup: string }>> = {
  bash: { argv: ["bash", "--norc", "--noprofile", "-i"], setup: "bind 'set enable-bracketed-paste off'" },
  zsh: { argv: ["zsh", "-f", "-i"], setup: "unset zle_bracketed_paste; unsetopt prompt_sp" },
};

/** Starts a shell with the completion loaded, and waits for its prompt. */
async function shellAt(name: string, place: Place, lidoDirectory: string): Promise<Terminal> {
  const { argv, setup } = shells[name]!;
  const terminal = new Terminal(argv, place.environment(lidoDirectory), 200);
  terminal.type(`cd ${place.directory}; PS1='> '; ${setup}; source <(lido completion ${name}); echo re''ady\r`);
  await terminal.sees(/\nready\r/);
  return terminal;
}

/** Types a line and TAB. @returns The completed line, as printed by the shell. */
async function completed(terminal: Terminal, typed: string): Promise<string> {
  terminal.type(`${typed}\t`);
  terminal.type("\x01echo @\x05\r");
  return (await terminal.sees(/\n@([^\r\n]*)\r/))[1]!.trimEnd();
}

async function furnished(): Promise<Daemon> {
  const daemon = await Daemon.start();
  try {
    await daemon.furnish(await busyboxImage());
    await daemon.ok("launch", "bb", "web-run", "-s", "plain", "-c", "user.note=x");
    await daemon.ok("init", "bb", "web-off");
    await daemon.ok("snapshot", "web-off", "before");
    await daemon.ok("storage", "volume", "create", "plain", "data");
    await daemon.ok("storage", "volume", "snapshot", "plain", "data", "monday");
    await daemon.lido(["storage", "volume", "file", "push", "-", "plain", "data/note"], { input: "x" });
    await daemon.ok("storage", "volume", "attach", "plain", "data", "web-run", "store", "/store");
  } catch (error) {
    await daemon[Symbol.asyncDispose]();
    throw error;
  }
  return daemon;
}

Deno.test("bash, zsh and fish complete verbs, options, values and what the daemon has", async (t) => {
  await using daemon = await furnished();
  using place = new Place();
  for (const shell of Object.keys(shells)) {
    await t.step(shell, async () => {
      using terminal = await shellAt(shell, place, daemon.directory);
      const wrong: string[] = [];
      for (const [typed, line] of cases) {
        const found = await completed(terminal, typed);
        if (found !== line) wrong.push(`${typed} -> ${found}`);
      }
      assert.deepEqual(wrong, []);
    });
  }
  await t.step("fish", async () => {
    const script = [
      "lido completion fish | source",
      ...cases.map(([typed]) => `echo "@$(complete -C '${typed}' | cut -f1 | string join '|')"`),
    ];
    const { out, err, code } = await command(
      ["fish", "--private", "-c", `cd ${place.directory}; ${script.join("; ")}`],
      {
        env: place.environment(daemon.directory),
      },
    );
    assert.deepEqual([code, err], [0, ""]);
    const found = out.trimEnd().split("\n");
    const wrong = cases.flatMap(([typed, line], index) => {
      const words = found[index]!.slice(1).split("|");
      const expected = line === typed ? "" : line.split(" ").at(-1)!;
      // Fish lists the candidates, the other shells type their common prefix. A file may have a "./" or not.
      const common = words.reduce((before, word) => {
        while (!word.startsWith(before)) before = before.slice(0, -1);
        return before;
      });
      const bare = (word: string) => word.replace(/^\.\//, "");
      return bare(common) === bare(expected) ? [] : [`${typed} -> ${words}`];
    });
    assert.deepEqual(wrong, []);
  });
  await t.step("all of a list, each with what it is", async () => {
    const { out } = await daemon.lido(["completion-values", "bash", "storage", "show", ""]);
    assert.equal(out, "words\nfast\tbtrfs\nplain\tdir\n");
    const options = (await daemon.lido(["completion-values", "bash", "exec", "--"])).out;
    assert.match(options, /^--cwd\tDirectory to run/m);
    assert.match(options, /^--quiet\t/m);
    assert.doesNotMatch((await daemon.lido(["completion-values", "bash", "exec", "--cwd", "/", "--"])).out, /^--cwd/m);
    assert.match((await daemon.lido(["completion-values", "bash", "list", "-c", "n"])).out, /^ns\tSTATE$/m);
    assert.doesNotMatch((await daemon.lido(["completion-values", "bash", ""])).out, /completion-values/);
    assert.doesNotMatch((await daemon.lido(["--help"])).out, /completion-values/);
  });
});

Deno.test("completion says nothing and does not wait when the daemon is not there or does not answer", async () => {
  using place = new Place();
  const socket = join(place.directory, "unix.socket");
  const connections: Socket[] = [];
  const silent = createServer((socket) => connections.push(socket));
  for (const isThere of [false, true]) {
    if (isThere) {
      silent.listen(socket);
      await once(silent, "listening");
    }
    for (const shell of Object.keys(shells)) {
      using terminal = await shellAt(shell, place, place.directory);
      const started = performance.now();
      assert.equal(await completed(terminal, "lido exec "), "lido exec");
      assert.ok(performance.now() - started < 4000, `${shell} waited`);
      assert.doesNotMatch(terminal.rest, /rror|ermission|refused/);
    }
  }
  silent.close();
  for (const one of connections) one.destroy();
});
