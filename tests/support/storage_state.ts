/** Lists custom volumes and snapshots by the API and on disk, which must agree. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Daemon } from "./daemon.ts";

/** @returns "pool/volume" and "pool/volume/snapshot", in order. @throws {AssertionError} When the API and the disk differ. */
export async function storageState(daemon: Daemon, pools: readonly string[]): Promise<string[]> {
  const known: string[] = [], present: string[] = [];
  for (const pool of pools) {
    const root = join(daemon.directory, "storage-pools", pool);
    for (const { name } of await daemon.query(`/1.0/storage-pools/${pool}/volumes/custom?recursion=1`) as Named[]) {
      if (name.includes("/")) continue; // a snapshot, which is listed below
      known.push(`${pool}/${name}`);
      const path = `/1.0/storage-pools/${pool}/volumes/custom/${name}/snapshots?recursion=1`;
      for (const snapshot of await daemon.query(path) as Named[]) known.push(`${pool}/${name}/${snapshot.name}`);
    }
    const bare = (name: string) => name.replace(/^default_/, "");
    for (const name of readdirSync(join(root, "custom"))) present.push(`${pool}/${bare(name)}`);
    for (const name of readdirSync(join(root, "custom-snapshots"))) {
      for (const snapshot of readdirSync(join(root, "custom-snapshots", name))) {
        present.push(`${pool}/${bare(name)}/${snapshot}`);
      }
    }
  }
  assert.deepEqual(present.sort(), known.sort(), "what is on disk is not what the API shows");
  return known;
}

interface Named {
  readonly name: string;
}
