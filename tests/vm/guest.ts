import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { projectRoot } from "../support/daemon.ts";

/** The guest cannot be built on this host: no packages, no room, or another processor. */
export class NoGuest extends Error {}

/** Builds the guest, or takes it from its cache. @param packages Additional Debian packages.
 * @returns Its directory. @throws {NoGuest} With the reason. */
export function prepare(packages: readonly string[] = []): Promise<string> {
  // A guest that exists already, such as a developer's own with more packages.
  if (process.env.LIDO_VM_GUEST) return Promise.resolve(process.env.LIDO_VM_GUEST);
  const child = spawn("bash", [join(projectRoot, "tests/vm/prepare.sh"), ...packages], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
    // The last line is the directory; the others are progress for a waiting user.
    if (!String(chunk).startsWith("/")) console.error(String(chunk).trimEnd());
  });
  child.stderr.on("data", (chunk) => err += chunk);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(out.trimEnd().split("\n").at(-1)!);
      else reject(new (code === 3 ? NoGuest : Error)(err.trimEnd().replace(/^Error: /, "")));
    });
  });
}
