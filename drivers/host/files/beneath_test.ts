import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { existsBeneath, openBeneath, readBeneath, writeBeneath } from "./beneath.ts";
import { libc } from "../ffi/libc.ts";

function tree(test: (root: string, outside: string) => void): void {
  const base = mkdtempSync(join(tmpdir(), "lido-beneath-"));
  try {
    mkdirSync(join(base, "root/etc"), { recursive: true });
    writeFileSync(join(base, "secret"), "secret");
    test(join(base, "root"), base);
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}

const text = (bytes: Uint8Array | undefined) => bytes && new TextDecoder().decode(bytes);

Deno.test("readBeneath() reads a file and knows when there is none", () =>
  tree((root) => {
    writeFileSync(join(root, "etc/passwd"), "root");
    assert.equal(text(readBeneath(root, "/etc/passwd")), "root");
    assert.equal(readBeneath(root, "/etc/shadow"), undefined);
    assert.equal(readBeneath(root, "/etc/passwd/x"), undefined);
  }));

Deno.test("a planted symlink leads nowhere outside, for reading and writing", () =>
  tree((root, base) => {
    symlinkSync(join(base, "secret"), join(root, "etc/passwd"));
    symlinkSync("../../../../../../..", join(root, "up"));
    assert.throws(() => readBeneath(root, "/etc/passwd"), /ELOOP/);
    assert.throws(() => readBeneath(root, `/up${base}/secret`), /ELOOP/);
    assert.throws(() => readBeneath(root, "../secret"), /EXDEV/);
    assert.equal(readBeneath(root, "/etc/passwd", { inRoot: true }), undefined);
    assert.throws(() => writeBeneath(root, "/etc/passwd", "x", { uid: 0, gid: 0 }), /ELOOP/);
    assert.equal(readFileSync(join(base, "secret"), "utf8"), "secret");
    assert.equal(existsBeneath(root, "/etc/passwd"), true);
  }));

Deno.test("inRoot follows a symlink as the container sees it", () =>
  tree((root) => {
    writeFileSync(join(root, "etc/real"), "inside");
    symlinkSync("/etc/real", join(root, "etc/link"));
    assert.equal(text(readBeneath(root, "/etc/link", { inRoot: true })), "inside");
  }));

Deno.test("a FIFO and a huge file are refused at once", () =>
  tree((root) => {
    execFileSync("mkfifo", [join(root, "etc/fifo")]);
    writeFileSync(join(root, "etc/huge"), "");
    truncateSync(join(root, "etc/huge"), 2 ** 30);
    assert.throws(() => readBeneath(root, "/etc/fifo"), /it is not a regular file/);
    assert.throws(() => readBeneath(root, "/etc/huge"), /it has 1073741824 bytes, 1048576 are allowed/);
  }));

Deno.test("writeBeneath() makes with the given owner and keeps that of a file that is there", () =>
  tree((root) => {
    writeBeneath(root, "/etc/hostname", "a longer name\n", { uid: 1000, gid: 1001 });
    writeBeneath(root, "/etc/hostname", "c1\n", { uid: 0, gid: 0 });
    const { uid, gid } = statSync(join(root, "etc/hostname"));
    assert.deepEqual([uid, gid, readFileSync(join(root, "etc/hostname"), "utf8")], [1000, 1001, "c1\n"]);
  }));

Deno.test("openBeneath() gives an fd of the root itself", () =>
  tree((root) => {
    const fd = openBeneath(root, "/", { flags: 0x200000 });
    assert.ok(fd >= 0);
    libc.close(fd);
  }));
