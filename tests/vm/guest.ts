import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { projectRoot } from "../support/daemon.ts";

/** What the guest is made of cannot be had on this host: no packages, no room, another processor. */
export class NoGuest extends Error {}

/** Builds the guest, or finds it in its cache. @param packages More Debian packages that it is to have.
 * @returns Its directory. @throws {NoGuest} With the reason. */
export function prepare(packages: readonly string[] = []): Promise<string> {
  // One that is there, such as a developer's own with more in it.
  if (process.env.LIDO_VM_GUEST) return Promise.resolve(process.env.LIDO_VM_GUEST);
  const child = spawn("bash", [join(projectRoot, "tests/vm/prepare.sh"), ...packages], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
    // Its last line is the answer; the others tell a waiting user how far it is.
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
