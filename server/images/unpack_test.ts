import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHost } from "../../drivers/host/real.ts";
import { unpackedBytes, unpackImage } from "./unpack.ts";

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

Deno.test("unpackImage() tells how much of the file it has read, against its size, whatever compresses it", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lido-unpack-"));
  try {
    const made = join(directory, "made");
    mkdirSync(join(made, "rootfs"), { recursive: true });
    writeFileSync(join(made, "metadata.yaml"), "architecture: x86_64\n");
    for (let file = 0; file < 4; file++) writeFileSync(join(made, "rootfs", `f${file}`), randomBytes(1 << 20));
    for (const compression of ["gzip", "zstd", "bzip2"]) {
      const file = join(directory, compression), target = join(directory, `${compression}.d`);
      execFileSync("tar", ["-C", made, `--${compression}`, "-cf", file, "metadata.yaml", "rootfs"]);
      mkdirSync(target);
      const told: [bytes: bigint, total: bigint | undefined][] = [];
      await unpackImage(createHost(), { main: file }, target, { progress: (...now) => void told.push(now as never) });
      const size = BigInt(statSync(file).size);
      assert.ok(
        told.every(([bytes, total], at) => total === size && bytes <= size && bytes >= (told[at - 1]?.[0] ?? 0n)),
      );
      const [first, last] = [told[0]![0], told.at(-1)![0]];
      assert.ok(first < size / 2n && last > size * 9n / 10n, `${compression}: ${first} to ${last} of ${size}`);
      assert.deepEqual(readFileSync(join(target, "rootfs/f3")), readFileSync(join(made, "rootfs/f3")));
      const abort = new AbortController(), reason = new Error("given up");
      const watch = { signal: abort.signal, progress: () => abort.abort(reason) };
      await assert.rejects(unpackImage(createHost(), { main: file }, target, watch), reason);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});
