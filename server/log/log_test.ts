import assert from "node:assert/strict";
import { LidoError } from "../../api/errors.ts";
import type { Event } from "../../api/types.ts";
import { Events } from "../events/events.ts";
import { Operations } from "../operations/operations.ts";
import { asClient, currentClient } from "./client.ts";
import { describeFailure } from "./failure.ts";
import { createLog } from "./log.ts";

Deno.test("events have every level and LXD's form while somebody listens; the log has its own level", () => {
  const events = new Events(), written: { level: number; msg: string }[] = [], seen: unknown[] = [];
  const log = createLog("info", events, { write: (line) => written.push(JSON.parse(line)) });
  log.debug({ n: 1 }, "nobody");
  const end = events.subscribe(["logging"], ({ metadata }) => seen.push(metadata));
  log.debug({ n: 1, list: ["a", "b"], none: undefined, deep: { x: 1 }, big: 10n ** 20n }, "seen");
  log.warn("text");
  end();
  log.debug({}, "nobody again");
  log.error({}, "written");
  assert.deepEqual(seen, [
    {
      context: { n: "1", list: "a b", deep: '{"x":1}', big: "100000000000000000000" },
      level: "debug",
      message: "seen",
    },
    { context: {}, level: "warning", message: "text" },
  ]);
  assert.deepEqual(written.map(({ level, msg }) => [level, msg]), [[40, "text"], [50, "written"]]);
  assert.equal(log.isLevelEnabled("debug"), false);
});

Deno.test("no event is made when nobody listens to its kind", () => {
  const events = new Events(), seen: Event[] = [];
  const log = createLog("fatal", events);
  events.subscribe(["lifecycle"], (event) => seen.push(event));
  log.info({}, "unseen");
  assert.equal(events.isListenedTo("logging"), false);
  assert.equal(log.isLevelEnabled("info"), false);
  const end = events.subscribe(["logging"], (event) => seen.push(event));
  log.info({}, "seen");
  end();
  log.info({}, "unseen");
  assert.deepEqual(seen.map(({ metadata }) => metadata.message), ["seen"]);
});

Deno.test("an operation is one line: who, what, how long, its result and cause; none of its metadata", async () => {
  const lines: Record<string, unknown>[] = [];
  const write = (level: string) => (fields: object, message: string) => lines.push({ level, message, ...fields });
  const log = { info: write("info"), warn: write("warn"), error: write("error") };
  const operations = new Operations(new Events(), { log });
  const run = async (work: () => Promise<void>, cancel = false) => {
    const operation = asClient(() => ({ uid: 1000, pid: 7 }), () =>
      operations.start({
        description: "Trying",
        resources: { instances: ["/1.0/instances/c1"], containers: ["/1.0/containers/c1"] },
        metadata: { environment: { TOKEN: "secret" }, return: 3 },
        run: work,
        cancel: () => {},
      }));
    if (cancel) operation.cancel();
    await operation.finished;
    const { operation: id, ms, ...line } = lines.pop()!;
    assert.deepEqual([id, typeof ms], [operation.id, "number"]);
    return line;
  };
  const who = { message: "Trying", uid: 1000, pid: 7, resources: ["/1.0/instances/c1"], return: 3 };
  assert.deepEqual(await run(() => Promise.resolve()), { level: "info", ...who, result: "success" });
  const busy = new LidoError("conflict", "It is busy");
  assert.deepEqual(await run(() => Promise.reject(busy)), {
    level: "warn",
    ...who,
    result: "failure",
    error: "It is busy",
  });
  const { stack, ...fault } = await run(() =>
    Promise.reject(new Error("No", { cause: new Error("the disk is full") }))
  );
  assert.deepEqual(fault, { level: "error", ...who, result: "failure", error: "No: the disk is full" });
  assert.match(String(stack), /Error: No/);
  assert.equal((await run(() => Promise.resolve(), true)).result, "cancelled");
  assert.equal(currentClient(), undefined);
  await operations.close();
});

Deno.test("a failure has its causes, and an end also when they go in a circle", () => {
  const circle = new Error("again");
  circle.cause = circle;
  assert.equal(describeFailure(circle).error, "again");
  const disk = new Error("the disk is full");
  const told = new LidoError("internal", "Cannot copy: the disk is full", {
    cause: new Error("outer", { cause: disk }),
  });
  assert.equal(describeFailure(told).error, "Cannot copy: the disk is full: outer", "no text is repeated");
  assert.deepEqual(describeFailure(new LidoError("not_found", "gone")), { error: "gone" });
});
