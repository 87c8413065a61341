/** Lets an executable of Bun's start in a working directory that was deleted, where Bun gives up before any code of ours: an entry of a few
 * instructions, in a segment of its own, goes to a directory without files if there is no other, and then to Bun's own entry.
 *   bun start_anywhere.ts FILE
 * Only for x86_64; others are left as they are. @see elf(5), getcwd(2) */
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";

/** Where nothing can be opened or made by a name that is relative; `cli/main.ts` knows it again. */
const nowhere = "/proc/self/fdinfo\0";
const pageBytes = 4096, headerBytes = 64, programHeaderBytes = 56;
const x86_64 = 62, LOAD = 1, NOTE = 4, READ_EXECUTE = 5;

/** @param at Its address. @param next Where it goes on. */
function entryCode(at: number, next: number): Buffer {
  const code = Buffer.concat([
    Buffer.from("4881ec00100000", "hex"), // sub rsp, 4096
    Buffer.from("b84f000000", "hex"), // mov eax, SYS_getcwd
    Buffer.from("4889e7", "hex"), // mov rdi, rsp
    Buffer.from("be00100000", "hex"), // mov esi, 4096
    Buffer.from("0f05", "hex"), // syscall
    Buffer.from("4881c400100000", "hex"), // add rsp, 4096
    Buffer.from("83f8fe", "hex"), // cmp eax, -ENOENT
    Buffer.from("750e", "hex"), // jne over the next three
    Buffer.from("b850000000", "hex"), // mov eax, SYS_chdir
    Buffer.from("488d3d00000000", "hex"), // lea rdi, [rip + path]
    Buffer.from("0f05", "hex"), // syscall
    Buffer.from("e900000000", "hex"), // jmp next
  ]);
  const path = code.length, afterLea = code.length - 7, afterJump = code.length;
  code.writeInt32LE(path - afterLea, afterLea - 4);
  code.writeInt32LE(next - (at + afterJump), afterJump - 4);
  return Buffer.concat([code, Buffer.from(nowhere)]);
}

const up = (value: number) => Math.ceil(value / pageBytes) * pageBytes;

const file = openSync(process.argv[2]!, "r+");
const header = Buffer.alloc(headerBytes);
readSync(file, header, 0, headerBytes, 0);
if (header.readUInt16LE(18) === x86_64) {
  const start = Number(header.readBigUInt64LE(32)), count = header.readUInt16LE(56);
  const table = Buffer.alloc(count * programHeaderBytes);
  readSync(file, table, 0, table.length, start);
  const programs = Array.from({ length: count }, (_, index) => table.subarray(index * programHeaderBytes));
  const note = programs.find((one) => one.readUInt32LE(0) === NOTE);
  if (note === undefined) throw new Error("Cannot give it another entry: it has no note that could make room");
  const ends = programs.filter((one) => one.readUInt32LE(0) === LOAD)
    .map((one) => Number(one.readBigUInt64LE(16) + one.readBigUInt64LE(40)));
  const address = up(Math.max(...ends)), offset = up(fstatSync(file).size);
  const code = entryCode(address, Number(header.readBigUInt64LE(24)));
  writeSync(file, code, 0, code.length, offset);
  note.writeUInt32LE(LOAD, 0);
  note.writeUInt32LE(READ_EXECUTE, 4);
  for (
    const [place, value] of [[8, offset], [16, address], [24, address], [32, code.length], [40, code.length], [
      48,
      pageBytes,
    ]]
  ) {
    note.writeBigUInt64LE(BigInt(value!), place!);
  }
  writeSync(file, table, 0, table.length, start);
  header.writeBigUInt64LE(BigInt(address), 24);
  writeSync(file, header, 0, headerBytes, 0);
}
closeSync(file);
