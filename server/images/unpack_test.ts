import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHost } from "../../drivers/host/real.ts";
import { unpackedBytes } from "./unpack.ts";

Deno.test("unpackedBytes() is what an archive has inside, where it says so without being read", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-unpack-"));
  try {
    const file = join(directory, "a.tar");
    writeFileSync(join(directory, "content"), Buffer.alloc(300_000, "lido "));
    execFileSync("tar", ["-C", directory, "-cf", file, "content"]);
    const bytes = BigInt(statSync(file).size);
    execFileSync("xz", ["-k", file]);
    execFileSync("gzip", ["-k", file]);
    const host = createHost();
    assert.equal(await unpackedBytes(host, file), bytes);
    assert.equal(await unpackedBytes(host, `${file}.xz`), bytes);
    assert.equal(await unpackedBytes(host, `${file}.gz`), undefined);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
