/** Podman in a container; takes minutes, including the making of its image. */
import { testUnified } from "../support/unified_host.ts";
import { runPodman } from "./nesting.ts";

Deno.test("podman runs containers from a local image in a container with security.nesting", () => runPodman());

testUnified("podman runs containers in cgroups of their own", (_t, { argv }) => runPodman(argv));
