/** Sizes as people write them. */

const units: Readonly<Record<string, bigint>> = {
  "": 1n,
  B: 1n,
  kB: 1000n,
  MB: 1000n ** 2n,
  GB: 1000n ** 3n,
  TB: 1000n ** 4n,
  PB: 1000n ** 5n,
  EB: 1000n ** 6n,
  KiB: 1024n,
  MiB: 1024n ** 2n,
  GiB: 1024n ** 3n,
  TiB: 1024n ** 4n,
  PiB: 1024n ** 5n,
  EiB: 1024n ** 6n,
};
/** The units to write, for errors and help. */
export const sizeUnits = "B, kB, MB, GB, TB, KiB, MiB, GiB, TiB";
const bytesMax = 2n ** 63n - 1n;

/** @param value "10GiB", "5GB", "4096".
 * @returns Bytes, or undefined when it is no size: negative, a fraction, an unknown unit, or 2^63 and more. */
export function parseSizeBytes(value: string): bigint | undefined {
  const match = /^(\d{1,19})([A-Za-z]*)$/.exec(value);
  if (!match || !Object.hasOwn(units, match[2]!)) return undefined;
  const bytes = BigInt(match[1]!) * units[match[2]!]!;
  return bytes > bytesMax ? undefined : bytes;
}

const binaryUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Bytes in words: in powers of 1024, as everywhere in lido. @param precision Digits after the point. @returns "1.50MiB". */
export function showBytes(bytes: number | bigint, precision = 2): string {
  let value = Number(bytes), unit = 0;
  while (value >= 1024 && unit < binaryUnits.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${Math.round(value)}B` : `${value.toFixed(precision)}${binaryUnits[unit]}`;
}

/** Two different sizes for one text: exact if they would look the same. @returns As `showBytes`, or "31457281B". */
export function showUnequalBytes(one: bigint, other: bigint): [string, string] {
  const shown: [string, string] = [showBytes(one), showBytes(other)];
  return shown[0] === shown[1] ? [`${one}B`, `${other}B`] : shown;
}

/** @returns The largest whole binary unit, as LXD writes sizes it chose itself: "5GiB". */
export function formatSize(bytes: bigint): string {
  for (const unit of ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB"]) {
    if (bytes > 0n && bytes % units[unit]! === 0n) return `${bytes / units[unit]!}${unit}`;
  }
  return `${bytes}B`;
}
