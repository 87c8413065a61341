/** Every image, started and stopped often: minutes. $LIDO_BOOT_CYCLES: how often. */
import process from "node:process";
import { images } from "./images.ts";
import { tellStory } from "./story.ts";

const cycles = Number(process.env.LIDO_BOOT_CYCLES ?? 20);

for (const image of images) {
  Deno.test(`${image.name} boots, stays and stops, often`, (t) => tellStory(t, image, { cycles, cron: true }));
}
