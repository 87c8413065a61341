/** The few parts of a tar archive that are written without tar: plain files of root's. @see tar(5) of libarchive */

const blockBytes = 512;

export const endOfArchive = new Uint8Array(2 * blockBytes);

/** The header of a file. @param name At most 100 bytes. */
export function tarFile(name: string, sizeBytes: number, mode: number): Uint8Array {
  const header = Buffer.alloc(blockBytes);
  if (Buffer.byteLength(name) > 100) throw new Error(`"${name}" is too long for a tar archive`);
  header.write(name, 0);
  const octal = (value: number, at: number, length: number) =>
    header.write(value.toString(8).padStart(length - 1, "0"), at);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  if (sizeBytes < 8 ** 11) octal(sizeBytes, 124, 12);
  else {
    // What eleven octal digits cannot hold is binary, as GNU's tar has it.
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(sizeBytes), 128);
  }
  octal(Math.floor(Date.now() / 1000), 136, 12);
  header.fill(" ", 148, 156);
  header.write("0", 156);
  header.write("ustar  ", 257);
  header.write("root", 265);
  header.write("root", 297);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}

/** What fills up the last block of a file. */
export function tarPadding(sizeBytes: number): Uint8Array {
  return new Uint8Array((blockBytes - sizeBytes % blockBytes) % blockBytes);
}
