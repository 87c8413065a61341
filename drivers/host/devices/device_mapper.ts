import { check, cString, libc, SystemCallError } from "../ffi/libc.ts";

/** struct dm_ioctl: 312 bytes, then the targets. @see linux/dm-ioctl.h */
const headBytes = 312, bufferBytes = 4096, nameOffset = 48, nameMax = 127, statusOffset = 40;
/** _IOWR(0xfd, 12, struct dm_ioctl): DM_TABLE_STATUS. */
const DM_TABLE_STATUS = 0xc138fd0c;
const O_RDWR = 2, O_CLOEXEC = 0x80000, ENXIO = 6, ENOENT = 2;

/** One line of `dmsetup status`. */
export interface TargetStatus {
  /** "thin-pool", "linear", … */
  readonly type: string;
  readonly parameters: string;
}

/** The status of a device-mapper device's only target. Asks the kernel directly: starting a process would cost more than the query.
 * @param name As in /dev/mapper. @returns undefined when it is not active, or this kernel has no device-mapper. */
export function targetStatus(name: string): TargetStatus | undefined {
  if (Buffer.byteLength(name) > nameMax) return undefined;
  const buffer = new Uint8Array(bufferBytes), view = new DataView(buffer.buffer);
  view.setUint32(0, 4, true); // the interface's version: 4.0.0
  view.setUint32(12, bufferBytes, true);
  view.setUint32(16, headBytes, true);
  buffer.set(new TextEncoder().encode(name), nameOffset);
  try {
    const fd = check("open /dev/mapper/control", libc.open(cString("/dev/mapper/control"), O_RDWR | O_CLOEXEC, 0));
    try {
      check(`status of ${name}`, libc.ioctl(fd, DM_TABLE_STATUS, buffer));
    } finally {
      libc.close(fd);
    }
  } catch (error) {
    if (error instanceof SystemCallError && [ENXIO, ENOENT].includes(error.errno)) return undefined;
    throw error;
  }
  return parseStatus(buffer);
}

/** @param answer struct dm_ioctl, followed by struct dm_target_spec with its text. */
export function parseStatus(answer: Uint8Array): TargetStatus | undefined {
  const view = new DataView(answer.buffer, answer.byteOffset, answer.byteLength);
  const start = view.getUint32(16, true), count = view.getUint32(20, true);
  if (count === 0 || start + statusOffset > answer.length) return undefined;
  return { type: text(answer, start + 24), parameters: text(answer, start + statusOffset) };
}

function text(bytes: Uint8Array, from: number): string {
  const end = bytes.indexOf(0, from);
  return new TextDecoder().decode(bytes.subarray(from, end < 0 ? bytes.length : end));
}
