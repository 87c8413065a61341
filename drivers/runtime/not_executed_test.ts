import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { whyNotExecuted } from "./not_executed.ts";

const absent = "exec: No such file or directory", format = "exec: Exec format error";

/** A minimal ELF file: a header, and one program header that names an interpreter. */
function elf(options: { machine: number; is32?: boolean; interpreter?: string }): Uint8Array {
  const { machine, is32 = false, interpreter = "" } = options;
  const bytes = new Uint8Array(256);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, is32 ? 1 : 2, 1, 1]);
  view.setUint16(18, machine, true);
  const table = is32 ? 52 : 64, text = 200;
  if (is32) view.setUint32(28, table, true);
  else view.setBigUint64(32, BigInt(table), true);
  view.setUint16(is32 ? 42 : 54, is32 ? 32 : 56, true);
  view.setUint16(is32 ? 44 : 56, interpreter === "" ? 0 : 1, true);
  view.setUint32(table, 3, true);
  if (is32) {
    view.setUint32(table + 4, text, true);
    view.setUint32(table + 16, interpreter.length + 1, true);
  } else {
    view.setBigUint64(table + 8, BigInt(text), true);
    view.setBigUint64(table + 32, BigInt(interpreter.length + 1), true);
  }
  bytes.set(new TextEncoder().encode(interpreter), text);
  return bytes;
}

Deno.test("a command that the kernel did not execute: what is missing is named, and a script without #! is the shell's", () => {
  const root = mkdtempSync(join(tmpdir(), "lido-refused-"));
  const put = (path: string, content: string | Uint8Array, mode = 0o755) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
    chmodSync(join(root, path), mode);
  };
  const why = (argv0: string, said: string, cwd = "/root") => {
    const spec = { argv: [argv0], environment: { PATH: "/none:/bin" }, cwd, uid: 0, gid: 0 };
    const { exitCode, message, script } = whyNotExecuted(root, spec, said);
    return [exitCode, message.replace(/^Command not (found|executable): /, ""), ...(script ? [script] : [])];
  };
  try {
    put("/bin/sh", elf({ machine: 62 }));
    put("/bin/python", "#! /opt/python -u\n");
    symlinkSync("/bin/python", join(root, "bin/snake"));
    put("/root/script", "#!/bin/snake\n");
    put("/root/dos", "#!/bin/sh\r\necho\r\n");
    put("/root/program", elf({ machine: 62, interpreter: "/lib64/ld.so.2" }));
    put("/root/old", elf({ machine: 3, is32: true, interpreter: "/lib/ld.so.1" }));
    put("/root/arm", elf({ machine: 40, is32: true }));
    put("/root/odd", elf({ machine: 999 }));
    put("/root/plain", "echo hi\n");
    put("/root/empty", "");
    put("/root/data", Uint8Array.of(1, 2, 0, 3, 10, 65));
    put("/root/relative", "#!./here\n");
    put("/root/loop", "#!/root/loop\n");
    put("/root/cut", elf({ machine: 62, interpreter: "/lib64/ld.so.2" }).subarray(0, 100));
    put("/root/private", "#!/bin/none\n", 0o644);
    symlinkSync("/etc/passwd", join(root, "root/outside"));

    assert.deepEqual(why("python", absent), [127, 'the interpreter "/opt/python" of "/bin/python" does not exist']);
    assert.deepEqual(why("/root/script", absent), [
      127,
      'the interpreter "/opt/python" of "/bin/snake" does not exist',
    ]);
    assert.deepEqual(why("./dos", absent), [
      127,
      'the interpreter "/bin/sh\\r" of "/root/dos" does not exist (its lines end with CR LF, not LF)',
    ]);
    assert.deepEqual(why("program", absent, "/root"), [127, "its interpreter does not exist"]);
    assert.deepEqual(why("./program", absent), [
      127,
      'the interpreter "/lib64/ld.so.2" of "/root/program" does not exist',
    ]);
    assert.deepEqual(why("old/", absent)[0], 127);
    assert.deepEqual(why("./old", ""), [127, 'the interpreter "/lib/ld.so.1" of "/root/old" does not exist']);
    assert.deepEqual(why("relative/../relative", absent), [
      127,
      'the interpreter "./here" of "/root/relative" does not exist',
    ]);
    assert.deepEqual(why("./arm", format), [126, '"/root/arm" is a program for another machine (ARM, 32-bit)']);
    assert.deepEqual(why("./odd", format), [126, '"/root/odd" is a program for another machine (number 999, 64-bit)']);
    assert.deepEqual(why("./plain", format), [126, '"/root/plain" is no program (Exec format error)', "/root/plain"]);
    assert.deepEqual(why("./empty", format).at(-1), "/root/empty");
    assert.deepEqual(why("./data", format), [126, '"/root/data" is no program (Exec format error)']);
    assert.deepEqual(why("./loop", "exec: Too many levels of symbolic links"), [
      126,
      "Too many levels of symbolic links",
    ]);
    assert.deepEqual(why("./sh", "exec: Argument list too long"), [126, "Argument list too long"]);
    assert.deepEqual(why("./cut", absent), [127, "its interpreter does not exist"]);
    assert.deepEqual(why("./private", "exec: Permission denied"), [126, "Permission denied"]);
    assert.deepEqual(why("./outside", format), [126, "Exec format error"]);
  } finally {
    rmSync(root, { recursive: true });
  }
});
