/** Every image, started and stopped often: minutes. */
import { images } from "./images.ts";
import { tellStory } from "./story.ts";

for (const image of images) {
  Deno.test(`${image.name} boots, stays and stops, often`, (t) => tellStory(t, image, { cycles: 20 }));
}
