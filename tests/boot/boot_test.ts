/** The images that `npm test` boots. */
import { testUnified } from "../support/unified_host.ts";
import { images } from "./images.ts";
import { tellStory } from "./story.ts";

const debian = images.find(({ name }) => name === "debian/12")!;

for (const image of images.filter(({ name }) => ["busybox", "debian/12"].includes(name))) {
  Deno.test(`${image.name} boots, stays and stops`, (t) => tellStory(t, image, { cycles: 3 }));
}

testUnified("debian/12 boots, stays and stops", (t, { argv }) => tellStory(t, debian, { cycles: 1, host: argv }));
