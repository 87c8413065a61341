/** The images that `npm test` boots. */
import { readFileSync } from "node:fs";
import { UnifiedHost } from "../support/unified_host.ts";
import { images } from "./images.ts";
import { tellStory } from "./story.ts";

const debian = images.find(({ name }) => name === "debian/12")!;
const hasV1 = readFileSync("/proc/mounts", "utf8").split("\n").some((line) => line.split(" ")[2] === "cgroup");

for (const image of images.filter(({ name }) => ["busybox", "debian/12"].includes(name))) {
  Deno.test(`${image.name} boots, stays and stops`, (t) => tellStory(t, image, { cycles: 3 }));
}

Deno.test({
  name: "debian/12 boots, stays and stops where there is cgroup2 alone" +
    (hasV1 ? "" : ": this host has no other, so the test before was it"),
  ignore: !hasV1,
  fn: async (t) => {
    await using host = await UnifiedHost.open();
    await tellStory(t, debian, { cycles: 1, host: host.argv });
  },
});
