import assert from "node:assert/strict";
import { yamlMap } from "./yaml_input.ts";

Deno.test("yamlMap() takes settings as they are written, and other fields as YAML has them", async () => {
  const text = `
config: {boot.autostart: true, limits.cpu: 2, initial.mode: 0755, user.x: ~, user.y: "no", user.z: 1e3}
devices:
  root: {type: disk, readonly: false}
ephemeral: true
profiles: [default]
storage_pools:
- name: p
  config: {size: 10}
`;
  assert.deepEqual(await yamlMap(text), {
    config: {
      "boot.autostart": "true",
      "limits.cpu": "2",
      "initial.mode": "0755",
      "user.x": "",
      "user.y": "no",
      "user.z": "1e3",
    },
    devices: { root: { type: "disk", readonly: "false" } },
    ephemeral: true,
    profiles: ["default"],
    storage_pools: [{ name: "p", config: { size: "10" } }],
  });
  assert.deepEqual(await yamlMap("config:\ndescription: x\n"), { config: {}, description: "x" });
  await assert.rejects(yamlMap("a: [\n"), /^UsageError: Config parsing error: /);
  await assert.rejects(yamlMap("- a\n", "Cannot read it"), /^UsageError: Cannot read it: a YAML map is allowed$/);
});
