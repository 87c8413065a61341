/** Tests of house style: which folder imports which, which files start processes, and what the client loads. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { needTrusted, trustedTools } from "../drivers/host/tools/host_tools.ts";
import { driverKinds } from "../drivers/storage/registry.ts";
import { groupSummaries } from "../cli/program.ts";
import { manPages } from "../scripts/man.ts";
import { referencePages } from "../scripts/reference.ts";
import { allNouns } from "../scripts/reference/commands.ts";
import { lifecycleActions } from "../server/events/actions.ts";
import { intentKinds } from "../server/journal/kinds.ts";
import { configurationMetadata } from "../server/metadata/configuration.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const rooms = ["api", "cli", "drivers", "server", "examples"];
const files = [
  ...rooms.flatMap((room) =>
    existsSync(join(root, room))
      ? readdirSync(join(root, room), { recursive: true }).map((name) => join(room, String(name)))
      : []
  ),
  "mod.ts",
].filter((path) => path.endsWith(".ts") && existsSync(join(root, path)));
const sources = new Map(files.map((path) => [path, readFileSync(join(root, path), "utf8")]));
const product = [...sources].filter(([path]) => !path.endsWith("_test.ts"));

interface Import {
  readonly target: string;
  readonly isType: boolean;
  readonly isLazy: boolean;
}

/** Imports of a file; those of project files as paths from the root. */
function importsOf(path: string): Import[] {
  const text = sources.get(path)!;
  const statics = [...text.matchAll(/^(?:import|export)\b([^;"]*?)\bfrom\s*"([^"]+)"/gm)]
    .map(([, clause, target]) => ({ target: target!, isType: /^\s*type\b/.test(clause!), isLazy: false }));
  const bare = [...text.matchAll(/^import\s*"([^"]+)"/gm)]
    .map(([, target]) => ({ target: target!, isType: false, isLazy: false }));
  const lazy = [...text.matchAll(/\bimport\(\s*"([^"]+)"/g)]
    .map(([, target]) => ({ target: target!, isType: false, isLazy: true }));
  return [...statics, ...bare, ...lazy].map((one) => ({
    ...one,
    target: one.target.startsWith(".") ? normalize(join(dirname(path), one.target)) : one.target,
  }));
}

const roomOf = (path: string) => path.split("/")[0]!;

const kernelUsers = ["cli/commands/daemon.ts", "cli/commands/admin/daemon.ts", "cli/terminal/raw.ts", "cli/edit.ts"];

Deno.test("imports go one way: api <- drivers <- server, and api <- cli", () => {
  const allowed: Record<string, string[]> = {
    api: ["api"],
    drivers: ["api", "drivers"],
    server: ["api", "drivers", "server"],
    cli: ["api", "cli"],
  };
  const wrong = product.flatMap(([path]) =>
    importsOf(path).filter(({ target }) => sources.has(target) && Object.hasOwn(allowed, roomOf(path)))
      .filter(({ target }) => !allowed[roomOf(path)]!.includes(roomOf(target)))
      // Allowed lazily: the command that starts the daemon, and the files that need the kernel for raw mode, the end of a process and an editor.
      .filter(({ isLazy }) => !(isLazy && kernelUsers.includes(path)))
      .map(({ target }) => `${path} imports ${target}`)
  );
  assert.deepEqual(wrong, []);
});

/** Groups of nodes that reach each other. */
function cyclesOf(edges: ReadonlyMap<string, ReadonlySet<string>>): string[][] {
  const reach = (from: string) => {
    const seen = new Set<string>();
    const waiting = [...edges.get(from) ?? []];
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      if (seen.has(node)) continue;
      seen.add(node);
      waiting.push(...edges.get(node) ?? []);
    }
    return seen;
  };
  const all = new Map([...edges.keys()].map((node) => [node, reach(node)]));
  const groups = new Map<string, string[]>();
  for (const [node, reached] of all) {
    if (!reached.has(node)) continue;
    const group = [...reached].filter((other) => all.get(other)?.has(node)).sort();
    groups.set(group.join(), group);
  }
  return [...groups.values()];
}

/** Edges between files that import each other, by a name for each file; without lazy imports, and without files that have no name. */
function edgesOf(nameOf: (path: string) => string | undefined): Map<string, Set<string>> {
  const edges = new Map<string, Set<string>>();
  for (const [path] of product) {
    const from = nameOf(path);
    if (from === undefined) continue;
    for (const { target, isLazy } of importsOf(path)) {
      const to = sources.has(target) ? nameOf(target) : undefined;
      if (isLazy || to === undefined || to === from) continue;
      edges.set(from, (edges.get(from) ?? new Set()).add(to));
    }
  }
  return edges;
}

Deno.test("no files import each other, types included", () => {
  assert.deepEqual(cyclesOf(edgesOf((path) => path)), []);
});

Deno.test("the folders of a room import one way, its own files between them", () => {
  const rooms = [
    "api",
    "cli",
    "drivers",
    "drivers/host",
    "drivers/runtime",
    "drivers/storage",
    "server",
    "server/instances",
  ];
  for (const room of rooms) {
    const edges = edgesOf((path) =>
      path.startsWith(`${room}/`) ? path.slice(room.length + 1).split("/")[0] : undefined
    );
    assert.ok(edges.size > 0, room);
    assert.deepEqual(cyclesOf(edges), [], room);
  }
});

Deno.test("a room's README has each of its folders", () => {
  for (const room of ["drivers/host", "drivers/runtime", "server", "tests"]) {
    const text = readFileSync(join(root, room, "README.md"), "utf8");
    const folders = readdirSync(join(root, room), { withFileTypes: true }).filter((entry) => entry.isDirectory());
    assert.deepEqual(folders.map(({ name }) => name).filter((name) => !text.includes(`\n| \`${name}\``)), [], room);
  }
});

Deno.test("api imports zod and nothing else", () => {
  const wrong = product.filter(([path]) => roomOf(path) === "api").flatMap(([path]) =>
    importsOf(path).filter(({ target }) => roomOf(target) !== "api" && !/^(zod|@hono\/zod-openapi)$/.test(target))
      .map(({ target }) => `${path} imports ${target}`)
  );
  assert.deepEqual(wrong, []);
});

Deno.test("a client loads neither the server nor a schema before it knows its verb", () => {
  const seen = new Set<string>();
  const heavy: string[] = [];
  const walk = (path: string, way: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const { target, isType, isLazy } of importsOf(path)) {
      if (isType || isLazy) continue;
      if (sources.has(target)) walk(target, `${way} > ${target}`);
      else if (!target.startsWith("node:")) heavy.push(`${way} loads ${target}`);
    }
  };
  walk("cli/main.ts", "cli/main.ts");
  assert.ok(seen.size > 3, "the walk found the client's files");
  assert.deepEqual(heavy, []);
});

Deno.test("only drivers/host starts processes and calls libc", () => {
  const forbidden = /node:child_process|Deno\.Command|Bun\.spawn|\bdlopen\(|bun:ffi/;
  const wrong = product.filter(([path, text]) => !path.startsWith("drivers/host/") && forbidden.test(text));
  assert.deepEqual(wrong.map(([path]) => path), []);
});

Deno.test("what touches the trees and devices of containers and archives is started by Host.confined and nothing else", () => {
  const starters = product.filter(([, text]) => /\bspawn\(|\bposix_spawn\(|node:child_process/.test(text));
  assert.deepEqual(starters.map(([path]) => path).sort(), [
    "drivers/host/mounts/idmap.ts", // holds a user namespace
    "drivers/host/process/foreground.ts", // the client's editor
    "drivers/host/process/process.ts", // used by the files below
    "drivers/host/tools/command.ts", // all tools: those of `trustedTools` as they are, any other confined
    "drivers/runtime/crun_tool.ts", // crun
    "drivers/runtime/exec.ts", // crun, for a command in a container
  ]);
  const walkers =
    /^(tar|cp|mv|rm|find|du|rsync|install|chown|chmod|xz|gzip|bzip2|zstd|sqfs2tar|unsquashfs|mksquashfs|mkfs.*|.*fsck.*|resize2fs|tune2fs|btrfstune|xfs_admin|xfs_repair|blkid|wipefs|dd|cat|sh|bash|env|unshare|nsenter|bwrap|btrfs receive|btrfs send)$/;
  assert.deepEqual([...trustedTools].filter((tool) => walkers.test(tool)), []);
  for (
    const argv of [["tar", "--create"], ["cp", "-a", "a", "b"], ["btrfs", "receive", "x"], ["btrfs", "send", "x"], [
      "/bin/cp",
    ]]
  ) {
    assert.throws(() => needTrusted(argv), /must be confined/);
  }
});

Deno.test("what lies in a process's memory is read where its file may never answer, or of none of a container's", () => {
  const knowing = ["drivers/runtime/files/holders.ts", "drivers/runtime/remains.ts"];
  const wrong = product.filter(([path, text]) =>
    !knowing.includes(path) && /\/(cmdline|environ|maps|smaps)`/.test(text)
  );
  assert.deepEqual(wrong.map(([path]) => path), []);
});

Deno.test("only three files know the runtime they are on: FFI, the client's stdin and its signals", () => {
  const knowing = ["drivers/host/ffi/libc.ts", "cli/exec/descriptors.ts", "cli/exec/signals.ts"];
  const wrong = product.filter(([path, text]) =>
    !knowing.includes(path) && /(?<![\w.`"])(Deno|Bun)\.\w/.test(text.replace(/^\s*(\/\/|\*|\/\*).*$/gm, ""))
  );
  assert.deepEqual(wrong.map(([path]) => path), []);
});

Deno.test("packages are imported by the names in package.json, files with their extension", () => {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const names = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
  const wrong = product.flatMap(([path]) =>
    importsOf(path)
      .filter(({ target }) =>
        !sources.has(target) && !target.startsWith("node:") &&
        !names.some((name) => target === name || target.startsWith(`${name}/`))
      )
      .map(({ target }) => `${path} imports ${target}`)
  );
  assert.deepEqual(wrong, []);
  const loose = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })
    .filter(([, version]) => !/^\d/.test(String(version)));
  assert.deepEqual(loose, [], "versions are exact");
});

Deno.test("a file is one idea: none has 500 lines", () => {
  const long = product.map(([path, text]) => [path, text.split("\n").length] as const).filter(([, lines]) =>
    lines >= 500
  );
  assert.deepEqual(long, []);
});

Deno.test("file names are snake_case", () => {
  assert.deepEqual(files.filter((path) => !/^[a-z0-9_/]+(\.d)?\.ts$/.test(path)), []);
});

Deno.test("no loose ends: nothing to do, nothing switched off, nothing of type any", () => {
  const loose =
    /\bTODO\b|\bFIXME\b|not implemented|(Deno\.test|\bit|\btest)\.only|: any\b(?=\s*[;,)=\]}>|[])|\bas any\b|@ts-ignore/;
  // The type checker cannot know the shape of foreign functions; the table in libc.ts does.
  const isForeign = (path: string) => path === "drivers/host/ffi/libc.ts";
  assert.deepEqual(
    [...sources].filter(([path, text]) => !isForeign(path) && loose.test(text)).map(([path]) => path),
    [],
  );
});

Deno.test("openapi.json is what the routes say", () => {
  const made = execFileSync(join(root, "node_modules/.bin/deno"), ["run", "-A", "server/openapi.ts"], { cwd: root });
  const committed = readFileSync(join(root, "openapi.json"), "utf8");
  assert.ok(made.toString() === committed, "openapi.json has drifted: npm run openapi");
});

Deno.test("docs/reference is what the code's tables say", async () => {
  const directory = join(root, "docs/reference");
  const pages = await referencePages();
  assert.deepEqual(readdirSync(directory).sort(), [...pages.keys()].sort());
  for (const [name, text] of pages) {
    assert.ok(readFileSync(join(directory, name), "utf8") === text, `${name} has drifted: npm run reference`);
  }
});

Deno.test("every configuration key says what it is, in one line", () => {
  const groups = Object.entries(configurationMetadata(driverKinds.values()).configs).flatMap(([thing, groups]) =>
    Object.values(groups).flatMap(({ keys }) => keys.flatMap((one) => Object.entries(one))).map(([key, told]) =>
      [`${thing}: ${key}`, told.shortdesc] as const
    )
  );
  assert.ok(groups.length > 100, `${groups.length} keys were found`);
  assert.deepEqual(groups.filter(([, help]) => !/^[^\s.].{8,}[^\s.]$/.test(help)), []);
});

Deno.test("every action of an event is published, and every kind of intent opened", () => {
  const texts = product.filter(([path]) => !/^server\/(events\/actions|journal\/kinds)\.ts$/.test(path))
    .map(([, text]) => text);
  const names = [...Object.keys(lifecycleActions), ...Object.keys(intentKinds)];
  assert.deepEqual(names.filter((name) => !texts.some((text) => text.includes(`"${name}"`))), []);
});

Deno.test("every command has a man page, and words that begin several say what for", async () => {
  const pages = await manPages();
  const words = (await allNouns()).flatMap(({ verbs }) => verbs.map((verb) => verb.words.split(" ")));
  const groups = words.flatMap((path) => path.slice(0, -1).map((_, end) => path.slice(0, end + 1)));
  const missing = [...words, ...groups].filter((path) => !pages.has(`lido-${path.join("-")}.1`));
  assert.deepEqual(missing, []);
  assert.deepEqual(groups.map((path) => path.join(" ")).filter((group) => !Object.hasOwn(groupSummaries, group)), []);
});

Deno.test({
  name: "groff has nothing to say of the man pages",
  ignore: !existsSync("/usr/bin/groff"),
  fn: async () => {
    const input = [...(await manPages()).values()].join("");
    const { stdout, stderr, status } = spawnSync("groff", ["-man", "-Tutf8", "-ww"], { input, maxBuffer: 1 << 26 });
    assert.equal(stderr.toString(), "");
    assert.equal(status, 0);
    assert.match(stdout.toString(), /Ask nothing: recover all that is found/);
  },
});

Deno.test("every migration is numbered, without a gap", () => {
  const names = readdirSync(join(root, "server/state/migrations")).sort();
  assert.deepEqual(names.map((name) => Number(name.slice(0, 3))), names.map((_, index) => index + 1));
});

Deno.test("docs/operations.md has every kind of intent", () => {
  const text = readFileSync(join(root, "docs/operations.md"), "utf8");
  const kinds = product.filter(([path]) => roomOf(path) === "server")
    .flatMap(([, source]) => [...source.matchAll(/\.kind<\w+>\(\s*"([\w.-]+)"/g)].map(([, kind]) => kind!));
  assert.ok(kinds.length > 20, `${kinds.length} kinds were found`);
  assert.deepEqual(kinds.filter((kind) => !text.includes(`\`${kind}\``)), []);
});
