import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Poller } from "../../drivers/host/poll/poll.ts";
import { closeFd, makePipe, readFd, setNonBlocking } from "../../drivers/host/process/process.ts";
import { childEnd } from "../../drivers/runtime/process/child.ts";
import { CrunRuntime } from "../../drivers/runtime/crun.ts";
import type { IdMap } from "../../drivers/host/id_map.ts";
import type { ContainerSpec } from "../../drivers/runtime/runtime.ts";
import { makeBusyboxRoot } from "./busybox_root.ts";

const ranges = [{ container: 0, host: 1_000_000, count: 65536 }];
const idmap: IdMap = { uid: ranges, gid: ranges };
export const environment = { PATH: "/bin:/sbin" };
export const log = { info: () => {}, warn: (context: object, message: string) => console.error(message, context) };

export interface Opened {
  readonly base: string;
  readonly poller: Poller;
  readonly runtime: CrunRuntime;
  readonly spec: ContainerSpec;
  run(
    argv: string[],
    options?: { uid?: number; cwd?: string },
  ): Promise<{ status: { code?: number; signal?: number }; output: string }>;
}

/** Runs `test` with a busybox container, and checks that nothing of it is left. */
export async function withContainer(
  test: (opened: Opened) => Promise<void>,
  options: Partial<ContainerSpec> = {},
): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "lido-runtime-"));
  chmodSync(base, 0o711);
  const poller = new Poller();
  const runtime = new CrunRuntime({ root: join(base, "run"), poller, log });
  const spec: ContainerSpec = {
    name: "c1",
    rootfs: join(base, "root"),
    rootfsShifted: true,
    idmap,
    mounts: [],
    environment: {},
    consoleLog: join(base, "console.log"),
    ...options,
  };
  try {
    makeBusyboxRoot(spec.rootfs);
    await runtime.start(spec);
    await test({ base, poller, runtime, spec, run: (argv, how) => runIn(runtime, poller, argv, how) });
  } finally {
    await runtime.destroy("c1");
    const left = readdirSync(join(base, "run")).filter((name) => !name.startsWith("."));
    await runtime.close();
    await poller.close();
    rmSync(base, { recursive: true, force: true });
    assert.deepEqual(left, [], "the runtime left something behind");
    assert.equal(poller.size, 0, "the runtime left a watch behind");
  }
}

export async function runIn(
  runtime: CrunRuntime,
  poller: Poller,
  argv: string[],
  options: { uid?: number; cwd?: string } = {},
): Promise<{ status: { code?: number; signal?: number }; output: string }> {
  const output = makePipe(), input = makePipe();
  const identity = { uid: options.uid ?? 0, gid: options.uid ?? 0 };
  try {
    const command = await runtime.exec("c1", { argv, environment, cwd: options.cwd ?? "/", ...identity }, {
      kind: "pipes",
      stdin: input.read,
      stdout: output.write,
      stderr: output.write,
    });
    closeFd(command.pidfd);
    const status = await childEnd(poller, command.pid);
    setNonBlocking(output.read);
    const buffer = new Uint8Array(65536);
    const count = readFd(output.read, buffer);
    return { status, output: typeof count === "number" ? new TextDecoder().decode(buffer.subarray(0, count)) : "" };
  } finally {
    for (const fd of [output.read, output.write, input.read, input.write]) closeFd(fd);
  }
}
