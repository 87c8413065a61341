import { runPodman } from "./nesting.ts";

Deno.test("podman runs containers from a local image in a container with security.nesting", runPodman);
