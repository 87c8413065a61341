import type { ByteInput } from "./byte_input.ts";
import { blockBytes, bytesText, damaged, numberField, paddingOf } from "./tar_fields.ts";

/** Where a file with holes has data: offset and length of each part in ascending order, without empty parts. */
export type SparseMap = readonly number[];

/** A map of this many parts takes 16 MiB. */
export const sparsePartsMax = 1 << 20;

/** @param numbers Offset, length, offset, length … as in the archive. @param sizeBytes Of the file. @param storedBytes Of its data.
 * @throws {Error} When the parts are not in order, or do not add up to the stored data. */
export function checkedMap(numbers: readonly number[], sizeBytes: number, storedBytes: number): SparseMap {
  if (numbers.length % 2 !== 0 || numbers.length > 2 * sparsePartsMax) {
    throw damaged("a map of a sparse file cannot be read");
  }
  const map: number[] = [];
  let end = 0, sum = 0;
  for (let at = 0; at < numbers.length; at += 2) {
    const offset = numbers[at]!, length = numbers[at + 1]!;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || length < 0 || offset < end) {
      throw damaged("a map of a sparse file overlaps");
    }
    end = offset + length;
    if (end > sizeBytes) throw damaged("a sparse file has data behind its end");
    sum += length;
    if (length > 0) map.push(offset, length);
  }
  if (sum !== storedBytes) throw damaged("a map of a sparse file does not fit its data");
  return map;
}

/** Reads the map of GNU's old format, which begins in the header and continues in blocks after it. */
export async function readOldMap(header: Uint8Array, input: ByteInput): Promise<number[]> {
  const numbers: number[] = [];
  const add = (block: Uint8Array, start: number, count: number) => {
    for (let at = start; at < start + 24 * count && block[at] !== 0; at += 24) {
      numbers.push(numberField(block, at, 12), numberField(block, at + 12, 12));
    }
    if (numbers.length > 2 * sparsePartsMax) throw damaged("a map of a sparse file is too long");
  };
  add(header, 386, 4);
  for (let more = header[482]; more;) {
    const block = await input.need(blockBytes);
    add(block, 0, 21);
    more = block[504];
  }
  return numbers;
}

/** Reads the map of GNU's format 1.0, which is before the data: decimal numbers, one a line, padded to a block.
 * @param storedBytes Of map and data. @returns The numbers, and the size of the map in bytes. */
export async function readNewMap(input: ByteInput, storedBytes: number): Promise<{ numbers: number[]; bytes: number }> {
  const numbers: number[] = [];
  let expected = 1, value = 0, digits = 0, bytes = 0, isCount = true;
  while (expected > 0) {
    if (bytes + blockBytes > storedBytes) throw damaged("a map of a sparse file cannot be read");
    const block = await input.need(blockBytes);
    bytes += blockBytes;
    for (let at = 0; at < blockBytes && expected > 0; at++) {
      const byte = block[at]!;
      if (byte !== 10) {
        if (byte < 48 || byte > 57 || ++digits > 16) throw damaged("a map of a sparse file cannot be read");
        value = value * 10 + byte - 48;
        continue;
      }
      if (digits === 0) throw damaged("a map of a sparse file cannot be read");
      if (isCount) {
        if (value > sparsePartsMax) throw damaged("a map of a sparse file is too long");
        expected = 2 * value + 1;
        isCount = false;
      } else numbers.push(value);
      expected--;
      value = digits = 0;
    }
  }
  return { numbers, bytes };
}

/** Writes a map in GNU's format 1.0, where an empty part stands for a hole at the end. */
export function writeMap(map: SparseMap, sizeBytes: number): Uint8Array {
  const end = map.length === 0 ? 0 : map.at(-2)! + map.at(-1)!;
  const numbers = end < sizeBytes || map.length === 0 ? [...map, sizeBytes, 0] : map;
  const text = Buffer.from(`${numbers.length / 2}\n${numbers.join("\n")}\n`);
  return Buffer.concat([text, new Uint8Array(paddingOf(text.length))]);
}

/** Reads a map of GNU's format 0.1: decimal numbers, separated by commas. */
export function commaMap(value: Uint8Array): number[] {
  const text = bytesText(value);
  if (!/^(\d{1,16}(,\d{1,16})*)?$/.test(text)) throw damaged("a map of a sparse file cannot be read");
  return text === "" ? [] : text.split(",").map(Number);
}
