/** A tree outside of everything that is attacked: any change in it shows that an attack escaped. */
import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tree } from "./tree.ts";

export class Canary implements Disposable {
  readonly directory: string;
  readonly #before: Record<string, string>;

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), "lido-canary-"));
    mkdirSync(join(this.directory, "etc"));
    writeFileSync(join(this.directory, "etc/passwd"), "root:x:0:0::/root:/bin/sh\n");
    writeFileSync(join(this.directory, "etc/shadow"), "a secret of the host\n", { mode: 0o600 });
    writeFileSync(join(this.directory, "etc/hostname"), "the host\n");
    mkdirSync(join(this.directory, "sbin"));
    writeFileSync(join(this.directory, "sbin/init"), "#!/bin/sh\n");
    chmodSync(join(this.directory, "sbin/init"), 0o755);
    mkdirSync(join(this.directory, "empty"));
    chownSync(join(this.directory, "empty"), 12, 34);
    symlinkSync("etc", join(this.directory, "link"));
    this.#before = tree(this.directory);
  }

  /** @throws {AssertionError} If the tree has changed: content, mode, owner, link count. */
  check(attack: string): void {
    assert.deepEqual(tree(this.directory), this.#before, `the host's tree has changed: ${attack}`);
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
