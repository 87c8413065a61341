/** The client at a terminal. */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Profile } from "../../../api/types.ts";
import { command } from "../../support/command.ts";
import { Daemon, executable } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { Terminal } from "../../support/terminal.ts";

function temporary(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "lido-client-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

Deno.test("the client at a terminal", async (t) => {
  await using daemon = await Daemon.start();
  const image = await busyboxImage();
  const { environment } = daemon;
  const shell = (script: string) => command(["bash", "-c", script], { env: { ...environment, LIDO: executable } });
  /** All output of a command on a terminal with so many columns. */
  const shown = async (columns: number, ...argv: string[]) => {
    using terminal = new Terminal([executable, ...argv], environment, columns);
    assert.equal(await terminal.ended, 0);
    return terminal.rest.replaceAll("\r\n", "\n");
  };

  await t.step("a launch without a pool says how to get one", async () => {
    await daemon.ok("image", "import", image, "--alias", "bb");
    await daemon.fails(
      ["launch", "bb", "c1"],
      /No root device could be found: .* by "lido admin init", or .*--storage$/m,
    );
    await daemon.ok("image", "delete", "bb");
  });

  await daemon.furnish(image);
  await daemon.ok("launch", "bb", "c1");

  await t.step("verbs that LXD has and lido has not say what works", async () => {
    for (
      const [words, verb, works] of [
        ["file pull c1/etc/hostname -", "file", /storage volume file/],
        ["network list", "network", /what works/],
        ["publish c1 --alias x", "publish", /image import/],
        ["config metadata show c1", "config metadata", /image show/],
        ["image copy a b", "image copy", /image import/],
        ["config trust add-token x", "config trust add-token", /core\.trust_password/],
        ["copy --refresh c1 c2", "copy --refresh", /delete the copy/],
        ["info --resources", "info --resources", /storage info/],
        ["remote --help", "remote", /LIDO_DIR/],
        ["help export", "export", /tar/],
        ["shell c1", "shell", /su -l/],
      ] as const
    ) {
      await daemon.fails(words.split(" "), works);
      const { err } = await daemon.lido(words.split(" "));
      assert.ok(err.startsWith(`Error: lido has no "${verb}" yet; what works: `), err);
    }
    const remote = /"images:debian\/12": images of remote servers cannot be had yet; "lido image import FILE/;
    await daemon.fails(["launch", "images:debian/12", "c9"], remote);
    await daemon.fails(["init", "nosuch", "c9"], /Image not found: "nosuch": "lido image list" shows/);
    await daemon.fails(["image", "list", "images:"], /Cannot list the images of "images:": images of remote servers/);
    await daemon.fails(["nosuch"], /^Error: Unknown command 'nosuch'/);
    await daemon.fails(["image", "imort"], /^Error: Unknown command 'imort'. Did you mean import/);
    await daemon.fails(["copy"], /^Error: Missing required argument/);
  });

  await t.step("options behind a command's first word are the command's, with and without --", async () => {
    assert.match(await daemon.ok("exec", "c1", "ls", "-la", "/etc"), /^total \d+\n/);
    assert.equal(await daemon.ok("exec", "c1", "echo", "-q", "--user", "--", "x"), "-q --user -- x");
    assert.equal(await daemon.ok("exec", "c1", "--cwd", "/etc", "--", "sh", "-c", "pwd"), "/etc");
    assert.equal(await daemon.ok("exec", "-T", "c1", "--cwd=/etc", "pwd"), "/etc");
  });

  await t.step("an argument that is no UTF-8 is refused, and not changed", async () => {
    const { out, err } = await shell(`
      $LIDO exec c1 -- printf %s $'caf\\xe9'; echo $?
      $LIDO exec c1 -- printf '%s ' $'caf\\xc3\\xa9' '\uFFFD'
    `);
    assert.deepEqual([out, err], [
      "1\ncafé \uFFFD ",
      'Error: Invalid argument "caf\uFFFD": it is no UTF-8, as which the API carries it\n',
    ]);
  });

  await t.step("what cannot be printed is told by an error and the exit code, by every verb that prints", async () => {
    await daemon.ok("storage", "volume", "create", "fast", "v1");
    const verbs = [
      ...[
        "list",
        "list -f csv",
        "info",
        "info c1",
        "config show c1",
        "config get c1 image.os",
        "storage list",
        "exec --list",
      ],
      ...[
        "image list",
        "profile show default",
        "query /1.0",
        "version",
        "--version",
        "help",
        "list --help",
        "completion zsh",
      ],
      ...[
        "admin check",
        "console c1 --show-log",
        "storage volume export fast v1 -",
        "storage volume file list fast v1",
      ],
    ];
    const results = await Promise.all(verbs.map(async (verb) => {
      const { err, code } = await shell(`$LIDO ${verb} >/dev/full`);
      return { verb, err, code };
    }));
    const lost = "Error: Cannot write to stdout: no space left on device\n";
    assert.deepEqual(results, verbs.map((verb) => ({ verb, err: lost, code: 1 })));
    assert.match((await shell("$LIDO admin init >/dev/full")).err, /^Error: The input ended [^\n]*\n$/);
    // The change itself succeeds: only the output fails.
    assert.deepEqual(
      (await shell("$LIDO launch bb told >/dev/full; echo $?; $LIDO list told -f csv -c s; $LIDO delete -f told")).out,
      "1\nRUNNING\n",
    );
  });

  await t.step("a reader that goes away ends a verb as SIGPIPE would, one that has no end of its own too", async () => {
    const { out, err } = await shell(`
      exec 3< <($LIDO monitor --type lifecycle; echo ended $? >&2)
      monitor=$!
      until [ -n "\${seen:-}" ]; do $LIDO config set c1 user.seen=x; read -r -t 0.1 -u 3 seen; done
      exec 3<&-
      while kill -0 $monitor 2>/dev/null; do $LIDO config set c1 user.seen=y; done
      exec 4> >(true)
      wait $!
      $LIDO list >&4
      echo list $? >&2
    `);
    assert.deepEqual([out, err], ["", "ended 141\nlist 141\n"]);
  });

  await t.step("a daemon that ends in the middle is a connection that was lost, with an exit code", async () => {
    using directory = temporary();
    const { out } = await shell(`
      cd ${directory.path}
      $LIDO monitor --type lifecycle >monitored 2>&1 & monitor=$!
      $LIDO exec c1 -- sh -c 'echo runs; exec sleep 1000' >executed 2>&1 & exec=$!
      until [ -s monitored ] && [ -s executed ]; do $LIDO config set c1 user.seen=x; done
      kill -9 ${daemon.pid}
      wait $monitor; echo $?; tail -n 1 monitored
      wait $exec; echo $?; tail -n 1 executed
    `);
    await daemon.up();
    const lost = "Error: Lost the connection to the lido daemon";
    const [monitored, monitorText, executed, execText] = out.split("\n");
    assert.deepEqual([monitored, executed], ["1", "255"]);
    assert.ok(monitorText!.startsWith(lost) && execText!.startsWith(lost), out);
  });

  await t.step("tables fit the terminal: in full, with narrower columns, or compact", async () => {
    const list = ["storage", "list"], volumes = ["storage", "volume", "list"];
    const full = await daemon.ok(...list);
    assert.equal((await shown(200, ...list)).trimEnd(), full);
    const source = `${daemon.directory}/storage-pools/plain`;
    assert.ok(full.includes(source));
    const width = (text: string) => Math.max(...text.split("\n").map((line) => line.length));
    const narrow = await shown(75, ...list);
    assert.ok(width(narrow) <= 75 && width(narrow) > 60, narrow);
    assert.match(narrow, /^\+-/);
    const cells = narrow.split("\n").filter((line) => line.startsWith("|")).map((line) => line.split("|")[3]!.trim());
    assert.ok(cells.join("").includes(source), narrow);
    const compact = await shown(60, ...list);
    assert.ok(width(compact) <= 60, compact);
    assert.match(compact, /^ +NAME +DRIVER +SOURCE/);
    assert.match(compact, /plain +dir +\/.*…/);
    const lists = [["image", "list"], list, ["operation", "list"], ["exec", "--list"], ["list"], [...volumes, "plain"]];
    await daemon.ok("exec", "--detach", "c1", "--", "sh", "-c", "echo a long command line; exec sleep 1000");
    for (const words of lists) {
      for (const columns of [40, 60, 80]) {
        const text = await shown(columns, ...words);
        assert.ok(width(text) <= columns, `${columns}: ${width(text)}\n${text}`);
        assert.doesNotMatch(text, / $/m);
      }
    }
    assert.equal(await shown(60, ...list, "-f", "csv"), `${await daemon.ok(...list, "-f", "csv")}\n`);
  });

  await t.step("progress fits the terminal, whose rows it would fill otherwise", async () => {
    using directory = temporary();
    const file = join(directory.path, "a-name-that-takes-more-room-than-there-is");
    writeFileSync(file, "");
    truncateSync(file, 256 << 20); // sparse: takes time to transfer, and no space
    using terminal = new Terminal(
      [executable, "storage", "volume", "file", "push", file, "fast", "v1/big"],
      environment,
      50,
    );
    await terminal.sees(/\r…[^\r\n]{1,47}: \d+% of 256\.00MiB [^\r\n]+\r/);
    assert.equal(await terminal.ended, 0);
    for (const line of terminal.rest.split("\r")) assert.ok(line.length < 50, line);
  });

  await t.step("edit opens the editor on a terminal, again after a mistake, and takes stdin otherwise", async () => {
    using directory = temporary();
    const editor = join(directory.path, "editor");
    /** Runs the client with an editor that does the next of `steps` each time it is opened. */
    const edit = (steps: readonly string[], ...argv: string[]) => {
      writeFileSync(
        editor,
        `#!/bin/sh\necho "$1" >>${directory.path}/files\ncp "$1" ${directory.path}/shown\n` +
          `n=$(cat ${directory.path}/files | wc -l)\ncase $n in\n` +
          steps.map((step, index) => `${index + 1}) ${step} ;;\n`).join("") + "esac\n",
      );
      chmodSync(editor, 0o755);
      rmSync(join(directory.path, "files"), { force: true });
      const words = { EDITOR: `${editor} `, VISUAL: "", TMPDIR: directory.path };
      return new Terminal([executable, ...argv], { ...environment, ...words }, 200);
    };
    {
      using terminal = edit(
        [
          `sed -i "s/^description:.*/description: [/" "$1"`,
          `sed -i "s/^description:.*/descripton: x/" "$1"`,
          `sed -i "s/^descripton:.*/description: by hand/; s/^config: {}/config: {boot.autostart: maybe, limits.cpu: 1}/" "$1"`,
          `sed -i "s/maybe/true/" "$1"`,
        ],
        "profile",
        "edit",
        "default",
      );
      await terminal.sees(/Error: Config parsing error: [^\n]*\nPress enter to open the editor again/);
      terminal.type("\r");
      await terminal.sees(/Error: Unknown field "descripton": .*description.* are allowed[^\n]*\nPress enter/);
      terminal.type("\r");
      await terminal.sees(/Error: Invalid value for configuration key "boot.autostart": .*"maybe"[^\n]*\nPress enter/);
      terminal.type("\r");
      assert.equal(await terminal.ended, 0);
      const profile = await daemon.query("/1.0/profiles/default") as Profile;
      assert.deepEqual([profile.description, profile.config["boot.autostart"]], ["by hand", "true"]);
      assert.match(
        readFileSync(join(directory.path, "shown"), "utf8"),
        /^### The configuration of the profile "default"/,
      );
    }
    {
      using terminal = edit([`sed -i "s/^description:.*/description: [/" "$1"`], "storage", "edit", "plain");
      await terminal.sees(/Press enter/);
      terminal.type("\x03");
      assert.equal(await terminal.ended, 1);
      assert.match(terminal.rest, /Error: Cancelled/);
    }
    const steps = [
      ["true", 0, ""],
      ["exit 3", 1, "ended with 3: nothing was changed"],
      [`rm "$1"`, 1, `Error: The editor "${editor}" deleted the file that it was given: nothing was changed`],
      [
        `rm "$1"; mkdir "$1"`,
        1,
        `Error: Cannot read what the editor "${editor}" wrote: is a directory; nothing was changed`,
      ],
    ] as const;
    for (const [step, ends, says] of steps) {
      using terminal = edit([step], "config", "edit", "c1");
      assert.equal(await terminal.ended, ends);
      assert.ok(terminal.rest.includes(says), terminal.rest);
    }
    const prompted = `sed -i "s/^description:.*/description: [/" "$1"`;
    for (
      const [step, shows, signal] of [
        ["echo edits; exec sleep 1000", /edits/, "SIGTERM"],
        ["echo edits; exec sleep 1000", /edits/, "SIGHUP"],
        ["trap '' TERM; echo edits; while true; do sleep 0.1; done", /edits/, "SIGTERM"],
        [prompted, /Press enter/, "SIGHUP"],
      ] as const
    ) {
      using terminal = edit([step], "config", "edit", "c1");
      await terminal.sees(shows);
      terminal.send(signal);
      assert.equal(await terminal.ended, signal === "SIGTERM" ? 143 : 129);
    }
    assert.deepEqual(readdirSync(directory.path).filter((name) => name.startsWith("lido-edit")), []);
    await daemon.lido(["profile", "edit", "default"], {
      input: (await daemon.ok("profile", "show", "default")).replace("by hand", "by pipe"),
    });
    assert.match(await daemon.ok("profile", "show", "default"), /by pipe/);
  });
});
