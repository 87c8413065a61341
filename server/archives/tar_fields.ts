/** The fields of a tar header and the records of a pax header, read strictly: what two readers could understand differently is an error.
 * @see tar(5) of libarchive, pax(1p) */

export const blockBytes = 512;

/** @returns Bytes of padding after content of this size, below 512. */
export function paddingOf(sizeBytes: number): number {
  return (blockBytes - sizeBytes % blockBytes) % blockBytes;
}

/** Text byte for byte: each character is one byte. Names in archives have no encoding, and a decoder could make two different names equal. */
export function bytesText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** Decodes a text for messages. @param text From `bytesText`. */
export function shown(text: string): string {
  const whole = JSON.stringify(Buffer.from(text, "latin1").toString());
  return whole.length > 200 ? `${whole.slice(0, 160)}…"` : whole;
}

/** A field that ends with its first NUL. */
export function textField(header: Uint8Array, start: number, length: number): string {
  const field = header.subarray(start, start + length);
  const end = field.indexOf(0);
  return bytesText(end < 0 ? field : field.subarray(0, end));
}

/** Reads octal digits, or GNU's binary form for larger numbers. @throws {Error} For anything else, and past 2^53. */
export function numberField(header: Uint8Array, start: number, length: number): number {
  const first = header[start]!;
  if (first === 0x80 || first === 0xff) {
    const digits = header.subarray(start + 1, start + length);
    let value = first === 0xff ? -1n : 0n;
    for (const byte of digits) value = (value << 8n) | BigInt(byte);
    if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) {
      throw damaged("a number is out of range");
    }
    return Number(value);
  }
  const text = bytesText(header.subarray(start, start + length));
  const digits = /^ *([0-7]*)[ \0]*$/.exec(text)?.[1] ?? /^ *([0-7]+)[ \0]/.exec(text)?.[1];
  if (digits === undefined) throw damaged("a number cannot be read");
  return digits === "" ? 0 : parseInt(digits, 8);
}

/** @throws {Error} */
export function checkSum(header: Uint8Array): void {
  let sum = 8 * 32, high = 0;
  for (let at = 0; at < blockBytes; at++) {
    if (at === 148) at = 156;
    const byte = header[at]!;
    sum += byte;
    high += byte >> 7;
  }
  const told = numberField(header, 148, 8);
  // Some old writers summed signed bytes.
  if (told !== sum && told !== sum - 256 * high) throw damaged("a header's checksum is wrong");
}

/** Reads the records of a pax header, in their order: "<length> <key>=<value>\n", where the length includes its own digits.
 * @throws {Error} When a record differs from that. */
export function paxRecords(bytes: Uint8Array): [key: string, value: Uint8Array][] {
  const records: [string, Uint8Array][] = [];
  const space = 32, newline = 10, equals = 61;
  for (let offset = 0; offset < bytes.length;) {
    let length = 0, at = offset;
    for (; at < offset + 9 && bytes[at] !== space; at++) {
      const digit = bytes[at]! - 48;
      if (!(digit >= 0 && digit <= 9)) throw unreadable();
      length = length * 10 + digit;
    }
    const end = offset + length;
    if (at === offset || bytes[at] !== space || end > bytes.length || end <= at + 2 || bytes[end - 1] !== newline) {
      throw unreadable();
    }
    const record = bytes.subarray(at + 1, end - 1);
    const divide = record.indexOf(equals);
    if (divide <= 0) throw unreadable();
    records.push([bytesText(record.subarray(0, divide)), record.subarray(divide + 1)]);
    offset = end;
  }
  return records;
}

function unreadable(): Error {
  return damaged("a pax header cannot be read");
}

export function damaged(why: string): Error {
  return new Error(`the archive is damaged: ${why}`);
}
