import { closeSync, constants, openSync } from "node:fs";
import { addressOf, check, cString, libc } from "../ffi/libc.ts";

/** The device nodes that processes of a v2 cgroup may use: a BPF program, since v2 has no files for it. Ours, not crun's: crun 1.8 first asks for
 * unlimited locked memory, which no kernel since 5.11 needs for a program and no daemon without CAP_SYS_RESOURCE gets.
 * @see https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller, bpf(2) */

const BPF_PROG_LOAD = 5, BPF_PROG_ATTACH = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE = 15, BPF_CGROUP_DEVICE = 6, BPF_F_ALLOW_MULTI = 2;
/** Opcodes: an instruction's class, its operation and the place of its second operand. */
const load32 = 0x61, move = 0xb7, moveRegister = 0xbf, andNumber = 0x57, shiftRight = 0x77, exit = 0x95;
const jumpNotEqual = 0x55;
const mknod = 1, read = 2, write = 4;
const types = { b: 1, c: 2 } as const;

/** @see `DeviceRule` in drivers/runtime/runtime.ts. */
export interface AllowedDevice {
  readonly type: "b" | "c";
  readonly major?: number;
  readonly minor?: number;
  readonly access: string;
}

/** The program: r2 is the node's type, r3 the requested access, r4 and r5 its numbers. A rule that does not match jumps to the next; the end denies.
 * @returns Its instructions, of 8 bytes each. @see struct bpf_cgroup_dev_ctx in linux/bpf.h */
export function deviceProgram(allowed: readonly AllowedDevice[]): BigUint64Array<ArrayBuffer> {
  const program = [
    instruction(load32, { target: 2, source: 1, offset: 0 }),
    instruction(moveRegister, { target: 3, source: 2 }),
    instruction(andNumber, { target: 2, value: 0xffff }),
    instruction(shiftRight, { target: 3, value: 16 }),
    instruction(load32, { target: 4, source: 1, offset: 4 }),
    instruction(load32, { target: 5, source: 1, offset: 8 }),
  ];
  for (const { type, major, minor, access } of allowed) {
    const others = ~bits(access) & (mknod | read | write);
    const tests: (readonly [register: number, value: number])[] = [[2, types[type]]];
    if (major !== undefined) tests.push([4, major]);
    if (minor !== undefined) tests.push([5, minor]);
    // The instructions after the tests: three that test the access, two that return.
    const rest = 5;
    for (const [index, [target, value]] of tests.entries()) {
      program.push(instruction(jumpNotEqual, { target, value, offset: tests.length - 1 - index + rest }));
    }
    program.push(
      instruction(moveRegister, { target: 1, source: 3 }),
      instruction(andNumber, { target: 1, value: others }),
      instruction(jumpNotEqual, { target: 1, value: 0, offset: 2 }),
      instruction(move, { target: 0, value: 1 }),
      instruction(exit, {}),
    );
  }
  program.push(instruction(move, { target: 0, value: 0 }), instruction(exit, {}));
  return new BigUint64Array(program);
}

/** Lets processes in the cgroup, and below it, use only `allowed` devices. The program goes with the cgroup; an existing one stays, and both must
 * allow.
 * @param directory The cgroup's, in a v2 hierarchy. @throws {SystemCallError} */
export function confineDevices(directory: string, allowed: readonly AllowedDevice[]): void {
  const program = deviceProgram(allowed), license = cString("GPL");
  const loading = new DataView(new ArrayBuffer(128));
  loading.setUint32(0, BPF_PROG_TYPE_CGROUP_DEVICE, true);
  loading.setUint32(4, program.length, true);
  loading.setBigUint64(8, addressOf(new Uint8Array(program.buffer)), true);
  loading.setBigUint64(16, addressOf(license), true);
  const fd = bpf("load the program for devices", BPF_PROG_LOAD, loading);
  try {
    const cgroup = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      const attaching = new DataView(new ArrayBuffer(128));
      for (const [index, value] of [cgroup, fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI].entries()) {
        attaching.setUint32(4 * index, value, true);
      }
      bpf(`confine devices of ${directory}`, BPF_PROG_ATTACH, attaching);
    } finally {
      closeSync(cgroup);
    }
  } finally {
    libc.close(fd);
  }
}

function bpf(what: string, command: number, attributes: DataView<ArrayBuffer>): number {
  const bytes = new Uint8Array(attributes.buffer);
  return check(what, libc.bpf(command, bytes, bytes.length));
}

function bits(access: string): number {
  return [...access].reduce((all, letter) => all | ({ m: mknod, r: read, w: write }[letter] ?? 0), 0);
}

function instruction(
  code: number,
  { target = 0, source = 0, offset = 0, value = 0 }: {
    target?: number;
    source?: number;
    offset?: number;
    value?: number;
  },
): bigint {
  const registers = BigInt(source << 4 | target);
  return BigInt(code) | registers << 8n | BigInt(offset) << 16n | BigInt(value) << 32n;
}
