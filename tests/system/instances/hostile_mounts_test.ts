/** The short form of tests/soak/mounts_test.ts. */
import { attackMounts } from "../../support/hostile_mounts.ts";

Deno.test("a container that swaps symlinks at the target gets no mount outside its root", async () => {
  await attackMounts(60);
});
