/** Builds streams in the format of `btrfs send`, with any commands. @see fs/btrfs/send.h */

export type Attributes = readonly (readonly [number, string | Uint8Array | bigint])[];

/** @param attributes Each with its number and its value: text, bytes or a 64-bit number. */
export function streamCommand(kind: number, attributes: Attributes): Uint8Array {
  const body = Buffer.concat(attributes.flatMap(([type, value]) => {
    const bytes = typeof value === "bigint" ? number(value) : Buffer.from(value as Uint8Array);
    const head = Buffer.alloc(4);
    head.writeUInt16LE(type, 0);
    head.writeUInt16LE(bytes.length, 2);
    return [head, bytes];
  }));
  const head = Buffer.alloc(10);
  head.writeUInt32LE(body.length, 0);
  head.writeUInt16LE(kind, 4);
  const whole = Buffer.concat([head, body]);
  whole.writeUInt32LE(checksum(whole), 6);
  return whole;
}

/** Builds a full stream of subvolume "v". */
export function fullStream(uuid: Uint8Array, ...commands: Uint8Array[]): Uint8Array {
  return whole(streamCommand(1, [[15, "v"], [1, uuid], [2, 1n]]), ...commands);
}

/** Builds an incremental stream of subvolume "v", relative to the subvolume with UUID `base`. */
export function differenceStream(uuid: Uint8Array, base: Uint8Array, ...commands: Uint8Array[]): Uint8Array {
  return whole(streamCommand(2, [[15, "v"], [1, uuid], [2, 2n], [20, base], [21, 1n]]), ...commands);
}

function whole(...commands: Uint8Array[]): Uint8Array {
  return Buffer.concat([Buffer.from("btrfs-stream\0\x01\0\0\0", "latin1"), ...commands, streamCommand(21, [])]);
}

function number(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** CRC-32C as in btrfs streams: starts at 0 and is not inverted. */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0x82f63b78 : sum >>> 1;
  }
  return sum >>> 0;
}
