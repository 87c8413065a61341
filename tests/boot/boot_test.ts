/** The images that `npm test` boots. */
import { images } from "./images.ts";
import { tellStory } from "./story.ts";

for (const image of images.filter(({ name }) => ["busybox", "debian/12"].includes(name))) {
  Deno.test(`${image.name} boots, stays and stops`, (t) => tellStory(t, image, { cycles: 3 }));
}
