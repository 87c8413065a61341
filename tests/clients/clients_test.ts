/** Runs other people's tools against lido, as scripts that follow the tools' documentation; for comparison also against a real LXD on this host:
 * $LXD_PEER_DIR is its directory, with an image `bb`. A script reports its steps as TAP lines. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { command } from "../support/command.ts";
import { Daemon, executable } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";

const directory = dirname(fileURLToPath(import.meta.url));
const peer = process.env.LXD_PEER_DIR;

interface Script {
  readonly file: string;
  /** Clients that the script is run with; a script that speaks the API itself names any. */
  readonly clients: readonly string[];
  /** Whether the script tests what lido lacks and a real LXD has. */
  readonly isOursAlone?: boolean;
}

const scripts: readonly Script[] = [
  { file: "lxc_verbs.sh", clients: ["lxc"], isOursAlone: true },
  { file: "shell_scripts.sh", clients: ["lxc", executable] },
  { file: "ansible_connection.sh", clients: ["lxc", executable] },
  { file: "packer_builder.sh", clients: ["lxc"] },
  { file: "gitlab_executor.sh", clients: ["lxc", executable] },
  { file: "pylxd.py", clients: ["lxc"] },
  { file: "molecule.py", clients: ["lxc"] },
];

/** Scripts that fail on a real LXD 5.0.2, with the reason. */
const lxdDiffers: Readonly<Record<string, string>> = {
  "what a command leaves in the background keeps nobody waiting": "LXD waits for whoever holds the pipe",
};

interface Step {
  readonly name: string;
  readonly passed: boolean;
  readonly skip: string | undefined;
  readonly detail: string;
}

function readTap(text: string): Step[] {
  return text.split(/^(?=(?:not )?ok - )/m).filter((part) => /^(not )?ok - /.test(part)).map((part) => {
    const [line = "", ...rest] = part.split("\n");
    const [name = "", skip] = line.replace(/^(not )?ok - /, "").split(" # SKIP ");
    return { name, passed: line.startsWith("ok"), skip, detail: rest.join("\n") };
  });
}

async function runScript(
  t: Deno.TestContext,
  file: string,
  environment: Record<string, string>,
  known: typeof lxdDiffers,
) {
  const path = join(directory, file);
  const argv = [file.endsWith(".py") ? "/usr/bin/python3" : "bash", path];
  const env = { ...environment, PREFIX: `t${process.pid}`, PYTHONDONTWRITEBYTECODE: "1" };
  const { out, err, code } = await command(argv, { env, timeoutMs: 240_000 });
  const steps = readTap(out);
  for (const { name, passed, skip, detail } of steps) {
    const reason = skip ?? known[name];
    await t.step({
      name: reason === undefined ? name : `${name}: ${reason}`,
      ignore: reason !== undefined,
      fn: () => assert.ok(passed, detail),
    });
  }
  await t.step("the script came to its end", () => {
    assert.ok(steps.length > 0 && code === 0, `${file} ended with ${code} after ${steps.length} steps\n${out}${err}`);
  });
}

Deno.test("tools that people have drive lido", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  for (const { file, clients } of scripts) {
    for (const client of clients) {
      const name = client === "lxc" ? client : "lido";
      const home = `${daemon.directory}.lxc`;
      const environment = {
        ...daemon.environment,
        CLIENT: client,
        IMAGE: "bb",
        POOL: "plain",
        HOME: home,
        LXD_CONF: home,
      };
      await t.step(`${file}, ${name}`, async (t) => await runScript(t, file, environment, {}));
    }
  }
});

Deno.test({
  name: "the same drive a real LXD" +
    (peer === undefined ? ": not on this host: $LXD_PEER_DIR names no LXD that runs" : ""),
  ignore: peer === undefined,
  fn: async (t) => {
    for (const { file } of scripts.filter(({ isOursAlone }) => !isOursAlone)) {
      await t.step(
        file,
        async (t) => await runScript(t, file, { LXD_DIR: peer!, CLIENT: "lxc", IMAGE: "bb" }, lxdDiffers),
      );
    }
  },
});
