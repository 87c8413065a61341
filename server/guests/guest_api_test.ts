import assert from "node:assert/strict";
import { type Guest, guestApi } from "./guest_api.ts";
import { guestEvents } from "./guest_events.ts";

const guest: Guest = { name: "c1", config: { "user.a": "1", "limits.cpu": "1" }, devices: {} };

Deno.test("guestApi() has nothing for an instance that is gone, or whose API is switched off", async () => {
  for (const there of [undefined, { ...guest, config: { ...guest.config, "security.devlxd": "false" } }]) {
    const api = guestApi(() => there);
    for (const path of ["/1.0/config", "/1.0/config/user.a", "/1.0/meta-data", "/1.0/devices"]) {
      const answer = await api.request(path);
      assert.deepEqual([answer.status, await answer.text()], [403, "not authorized\n"], path);
    }
  }
});

Deno.test("guestApi() takes keys from the configuration and not from what objects inherit", async () => {
  const api = guestApi(() => ({ ...guest, config: { "user.a": "1", "cloud-init.user-data": "x" } }));
  assert.equal((await api.request("/1.0/config/constructor")).status, 403);
  assert.equal((await api.request("/1.0/config/user.a")).status, 200);
  assert.equal(await (await api.request("/1.0/config/cloud-init.user-data")).text(), "x");
  assert.equal((await api.request("/1.0/config/user.")).status, 404);
});

Deno.test("guestEvents() tells keys first, then what goes, comes, and is only changed", () => {
  const disk = { type: "disk", source: "/a", path: "/a" };
  const events = guestEvents(
    { config: { "user.a": "1", "limits.cpu": "1" }, devices: { root: { size: "1" }, a: disk, b: disk } },
    { config: { "cloud-init.x": "2" }, devices: { root: { size: "2" }, b: { ...disk, readonly: "true" }, c: disk } },
  );
  assert.deepEqual(events.map(({ metadata }) => metadata), [
    { key: "user.a", old_value: "1", value: "" },
    { key: "cloud-init.x", old_value: "", value: "2" },
    { action: "removed", config: disk, name: "a" },
    { action: "removed", config: disk, name: "b" },
    { action: "added", config: { ...disk, readonly: "true" }, name: "b" },
    { action: "added", config: disk, name: "c" },
    { action: "updated", config: { size: "2" }, name: "root" },
  ]);
});
