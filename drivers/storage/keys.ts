import { parseSizeBytes, sizeUnits } from "../../api/size.ts";
import type { ConfigKey } from "./driver.ts";

type Check = ConfigKey["check"];

export const anyText: Check = (value) => value.includes("\0") ? "must not hold a NUL byte" : undefined;
export const boolean: Check = (value) =>
  /^(true|false|1|0|yes|no|on|off)$/i.test(value)
    ? undefined
    : `Invalid value for a boolean "${value}": true or false is allowed`;
export const size: Check = (value) =>
  parseSizeBytes(value) === undefined
    ? `Invalid size "${value}": a number with one of ${sizeUnits} is allowed`
    : undefined;
export const words: Check = (value) =>
  /^[\w=,.:/ -]*$/.test(value)
    ? undefined
    : `Invalid value "${value}": letters, digits, blanks and = , . : / _ - are allowed`;
export const integer = (min: number, max: number): Check => (value) =>
  /^\d{1,10}$/.test(value) && Number(value) >= min && Number(value) <= max
    ? undefined
    : `Invalid value "${value}": a number from ${min} to ${max} is allowed`;
export const mode: Check = (value) =>
  /^0?[0-7]{3,4}$/.test(value) ? undefined : `Invalid mode "${value}": three or four octal digits are allowed`;

export function isTrue(value: string | undefined): boolean {
  return value !== undefined && /^(true|1|yes|on)$/i.test(value);
}

/** Only an explicit "false", "0", "no" or "off": absent is not false. */
export function isFalse(value: string | undefined): boolean {
  return value !== undefined && /^(false|0|no|off)$/i.test(value);
}

/** Keys that every driver's volumes have. */
export const commonVolumeKeys: Readonly<Record<string, ConfigKey>> = {
  "size": { check: size, help: "Limit on the volume's size" },
  "initial.uid": { check: integer(0, 4294967294), default: "0", fixed: true, help: "Owner of a new volume's root" },
  "initial.gid": { check: integer(0, 4294967294), default: "0", fixed: true, help: "Group of a new volume's root" },
  "initial.mode": { check: mode, default: "0711", fixed: true, help: "Mode of a new volume's root" },
};
