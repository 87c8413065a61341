/** The exec engine on plain processes: whatever a command does, every byte that it wrote before its death arrives, in order, its status is exact,
 * and nothing hangs. A failing case prints its seed; $LIDO_SEED runs it again. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import fc from "fast-check";
import { Poller } from "../../drivers/host/poll/poll.ts";
import { openPidfd, openPty, spawnProcess } from "../../drivers/host/process/process.ts";
import type { CommandStdio, LaunchedCommand } from "../../drivers/runtime/runtime.ts";
import { Command } from "../../server/exec/command.ts";
import type { Sink } from "../../server/exec/output.ts";

type Stream = 1 | 2;
type Action =
  | { readonly kind: "write"; readonly stream: Stream; readonly bytes: number }
  | { readonly kind: "pause"; readonly ms: number }
  | { readonly kind: "holder"; readonly holder: "silent" | "slow" | "endless"; readonly stream: Stream }
  | { readonly kind: "close"; readonly stream: Stream }
  | { readonly kind: "ignore"; readonly signal: number };
type End = { readonly kind: "exit"; readonly code: number } | { readonly kind: "die"; readonly signal: number };

interface Case {
  readonly isTerminal: boolean;
  readonly actions: readonly Action[];
  readonly end: End;
  /** The reader pauses for `ms` milliseconds after every so many chunks. */
  readonly stall: { readonly every: number; readonly ms: number };
}

const stream = fc.constantFrom<Stream>(1, 2);
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("write" as const), stream, bytes: sizes() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("pause" as const), ms: fc.integer({ min: 1, max: 15 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("holder" as const),
      holder: fc.constantFrom("silent" as const, "slow" as const, "endless" as const),
      stream,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("close" as const), stream }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("ignore" as const), signal: fc.constantFrom(1, 2, 13, 15) }) },
);
const end: fc.Arbitrary<End> = fc.oneof(
  fc.record({ kind: fc.constant("exit" as const), code: fc.integer({ min: 0, max: 255 }) }),
  fc.record({ kind: fc.constant("die" as const), signal: fc.constantFrom(1, 2, 6, 9, 10, 13, 15) }), // busybox's shell ignores SIGQUIT
);
const anyCase: fc.Arbitrary<Case> = fc.record({
  isTerminal: fc.boolean(),
  actions: fc.array(action, { maxLength: 6 }),
  end,
  stall: fc.record({ every: fc.integer({ min: 1, max: 6 }), ms: fc.constantFrom(0, 0, 0, 1, 5, 20) }),
});

/** Sizes around the limits at which kernels and loops behave differently. */
function sizes(): fc.Arbitrary<number> {
  return fc.oneof(
    fc.integer({ min: 1, max: 200 }),
    fc.constantFrom(4095, 4096, 4097, 65_535, 65_536, 65_537),
    fc.integer({ min: 1, max: 400_000 }),
  );
}

/** Bytes that the command writes itself: without `H`, and without bytes that a terminal would change. */
const ownBytes = (offset: number, count: number) =>
  Uint8Array.from({ length: count }, (_, index) => 97 + (offset + index) % 23);
const holderByte = 72;

/** The case as a script for busybox, and the bytes that it writes to each stream. */
function script({ actions, end, isTerminal }: Case): { text: string; expected: Record<Stream, Uint8Array> } {
  const written: Record<Stream, Uint8Array[]> = { 1: [], 2: [] };
  const closed = new Set<Stream>();
  const ignored = new Set<number>();
  const lines = isTerminal ? ["stty -opost -echo"] : [];
  let offset = 0;
  for (const one of actions) {
    switch (one.kind) {
      case "write":
        if (closed.has(one.stream)) break;
        // Read from the long pattern at $PATTERN: one process, many writes.
        lines.push(`tail -c +${offset % 23 + 1} "$PATTERN" 2>/dev/null | head -c ${one.bytes} >&${one.stream}`);
        written[isTerminal ? 1 : one.stream].push(ownBytes(offset, one.bytes));
        offset += one.bytes;
        break;
      case "pause":
        lines.push(`usleep ${one.ms * 1000}`);
        break;
      case "holder":
        if (closed.has(one.stream)) break;
        lines.push(holder(one.holder, one.stream));
        break;
      case "close":
        lines.push(`exec ${one.stream}>&-`);
        closed.add(one.stream);
        break;
      case "ignore":
        lines.push(`trap '' ${one.signal}`);
        ignored.add(one.signal);
        break;
    }
  }
  lines.push(end.kind === "exit" || ignored.has(end.signal) ? `exit ${codeOf(end)}` : `kill -${end.signal} $$`);
  return { text: lines.join("\n"), expected: { 1: Buffer.concat(written[1]), 2: Buffer.concat(written[2]) } };
}

function holder(kind: "silent" | "slow" | "endless", stream: Stream): string {
  if (kind === "silent") return "sleep 1000 &";
  if (kind === "slow") return `(while :; do printf H >&${stream} || exit; usleep 2000; done) 2>/dev/null &`;
  return `(while :; do printf HHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHH >&${stream} || exit; done) 2>/dev/null &`;
}

const codeOf = (end: End) => end.kind === "exit" ? end.code : 128 + end.signal;

/** A reader that accepts everything, and pauses now and then. */
class Reader implements Sink {
  readonly chunks: Uint8Array[] = [];
  readonly #stall: Case["stall"];
  bytes = 0;

  constructor(stall: Case["stall"]) {
    this.#stall = stall;
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    this.chunks.push(chunk.slice());
    this.bytes += chunk.length;
    if (this.#stall.ms === 0 || this.chunks.length % this.#stall.every !== 0) return undefined;
    return new Promise((resolve) => setTimeout(resolve, this.#stall.ms));
  }

  own(): Uint8Array {
    return Buffer.concat(this.chunks).filter((byte) => byte !== holderByte);
  }
}

function launch(text: string, pattern: string): (stdio: CommandStdio) => Promise<LaunchedCommand> {
  return (stdio) => {
    const pty = stdio.kind === "pty" ? openPty({ width: 80, height: 24 }) : undefined;
    const pid = spawnProcess({
      file: "/bin/busybox",
      argv: ["sh", "-c", text],
      environment: { PATH: "/nowhere", PATTERN: pattern },
      stdio: stdio.kind === "pipes" ? stdio : { stdin: 0, stdout: 1, stderr: 2 },
      ...(pty ? { terminal: pty.path } : {}),
    });
    return Promise.resolve({ pid, pidfd: openPidfd(pid), ...(pty ? { pty: pty.master } : {}) });
  };
}

async function check(poller: Poller, one: Case, pattern: string): Promise<void> {
  const { text, expected } = script(one);
  const stdout = new Reader(one.stall), stderr = new Reader(one.stall);
  const command = await Command.start(poller, {
    launch: launch(text, pattern),
    ...(one.isTerminal ? { terminal: { width: 80, height: 24 } } : {}),
    stdout,
    stderr,
  });
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`hangs: ${JSON.stringify(one)}`)), 20_000);
  try {
    const code = await Promise.race([command.ended, late.promise]);
    assert.equal(code, codeOf(one.end), `exit code of ${JSON.stringify(one)}`);
    for (const [name, reader] of [["1", stdout], ["2", stderr]] as const) {
      const wanted = expected[Number(name) as Stream];
      const got = reader.own();
      assert.ok(
        Buffer.compare(got, wanted) === 0,
        `stream ${name}: ${got.length} bytes of ${wanted.length}, or in another order: ${JSON.stringify(one)}`,
      );
    }
  } finally {
    clearTimeout(timer);
    try {
      process.kill(-command.pid, "SIGKILL"); // the processes that keep its streams open: they are in its session and group
    } catch { /* none is running */ }
  }
}

const openFds = () => readdirSync("/proc/self/fd").length;

Deno.test("every byte before the death arrives, in order, whatever holds the streams", async () => {
  const pattern = Deno.makeTempFileSync();
  Deno.writeFileSync(pattern, ownBytes(0, 500_000));
  const poller = new Poller();
  const seed = Number(process.env.LIDO_SEED ?? Date.now() % 2 ** 31);
  // Each run has several commands at once: one session must not affect another.
  const several = fc.array(anyCase, { minLength: 4, maxLength: 12 });
  try {
    await check(
      poller,
      { isTerminal: false, actions: [], end: { kind: "exit", code: 0 }, stall: { every: 1, ms: 0 } },
      pattern,
    );
    const before = openFds();
    await fc.assert(
      fc.asyncProperty(several, (cases) => Promise.all(cases.map((one) => check(poller, one, pattern))).then(() => {})),
      { seed, numRuns: Number(process.env.LIDO_RUNS ?? 250), endOnFailure: true },
    );
    assert.equal(poller.size, 0, "descriptors that are still watched");
    assert.equal(openFds(), before, "descriptors that are still open");
  } catch (error) {
    console.error(`LIDO_SEED=${seed} runs this again`);
    throw error;
  } finally {
    await poller.close();
    Deno.removeSync(pattern);
  }
});
