/** Podman in a container, minutes with the making of its image. */
import { readFileSync } from "node:fs";
import { UnifiedHost } from "../support/unified_host.ts";
import { runPodman } from "./nesting.ts";

const hasV1 = readFileSync("/proc/mounts", "utf8").split("\n").some((line) => line.split(" ")[2] === "cgroup");

Deno.test("podman runs containers from a local image in a container with security.nesting", () => runPodman());

Deno.test({
  name: "podman runs containers in cgroups of their own where there is cgroup2 alone" +
    (hasV1 ? "" : ": this host has no other, so the test before was it"),
  ignore: !hasV1,
  fn: async () => {
    await using host = await UnifiedHost.open();
    await runPodman(host.argv);
  },
});
