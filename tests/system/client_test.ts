/** What the client is to a person at a terminal. */
import assert from "node:assert/strict";
import { Daemon, executable } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { Terminal } from "../support/terminal.ts";

Deno.test("the client at a terminal", async (t) => {
  await using daemon = await Daemon.start();
  const image = await busyboxImage();
  const { environment } = daemon;
  /** All that a command shows on a terminal of so many columns. */
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

  await t.step("options behind a command's first word are the command's, with and without --", async () => {
    assert.match(await daemon.ok("exec", "c1", "ls", "-la", "/etc"), /^total \d+\n/);
    assert.equal(await daemon.ok("exec", "c1", "echo", "-q", "--user", "--", "x"), "-q --user -- x");
    assert.equal(await daemon.ok("exec", "c1", "--cwd", "/etc", "--", "sh", "-c", "pwd"), "/etc");
    assert.equal(await daemon.ok("exec", "-T", "c1", "--cwd=/etc", "pwd"), "/etc");
  });

  await t.step("tables fit the terminal: in full, with narrower columns, or compact", async () => {
    const list = ["storage", "list"];
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
    assert.equal(await shown(60, ...list, "-f", "csv"), `${await daemon.ok(...list, "-f", "csv")}\n`);
  });
});
