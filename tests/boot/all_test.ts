/** Starts and stops every image many times, and once on a host with cgroup2 alone; takes minutes.
 * $LIDO_BOOT_CYCLES: number of starts. $LIDO_BOOT_IMAGES: names of images, separated by spaces; all when unset. */
import process from "node:process";
import { testUnified } from "../support/unified_host.ts";
import { images } from "./images.ts";
import { tellStory } from "./story.ts";

const cycles = Number(process.env.LIDO_BOOT_CYCLES ?? 20);
const names = process.env.LIDO_BOOT_IMAGES?.split(" ") ?? images.map(({ name }) => name);

for (const image of images.filter(({ name }) => names.includes(name))) {
  const boots = `${image.name} boots, stays and stops`;
  Deno.test(`${boots}, often`, (t) => tellStory(t, image, { cycles, cron: true }));
  testUnified(boots, (t, { argv }) => tellStory(t, image, { cycles: 1, host: argv }));
}
