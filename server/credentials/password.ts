import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";

const hash = promisify(scrypt) as (password: string, salt: Uint8Array, bytes: number) => Promise<Buffer>;
const saltBytes = 32, hashBytes = 64;

/** The salted hash of a password, for storing. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(saltBytes);
  return `${salt.toString("hex")}:${(await hash(password, salt, hashBytes)).toString("hex")}`;
}

/** @param kept As `hashPassword` made it. */
export async function isPassword(password: string, kept: string): Promise<boolean> {
  const [salt, expected] = kept.split(":").map((part) => Buffer.from(part, "hex"));
  return timingSafeEqual(await hash(password, salt!, hashBytes), expected!);
}
