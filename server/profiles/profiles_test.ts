import assert from "node:assert/strict";
import { Events } from "../events/events.ts";
import { Journal } from "../journal/journal.ts";
import { Database } from "../state/database.ts";
import { Profiles } from "./profiles.ts";

Deno.test("of two changes of a profile at once, the undo of the first does not undo the second", async () => {
  const database = new Database(":memory:");
  const log = { warn: () => {} };
  const begun = Promise.withResolvers<void>(), failure = Promise.withResolvers<never>();
  const answers = [() => (begun.resolve(), failure.promise)];
  const profiles = new Profiles({
    database,
    events: new Events(),
    journal: new Journal(database, log),
    users: () => new Map(),
    changed: () => answers.pop()?.() ?? Promise.resolve({ notes: [], failures: [] }),
    log,
  });
  profiles.create({ name: "p", description: "", config: {}, devices: {} });
  const put = (description: string) => profiles.update("p", { description, config: {}, devices: {} }, false);
  const first = put("first");
  await begun.promise;
  const second = put("second");
  failure.reject(new Error("the daemon's fault"));
  await assert.rejects(first, /the daemon's fault/);
  await second;
  assert.equal(profiles.get("p").description, "second");
});
