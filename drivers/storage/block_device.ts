import { readFile, stat } from "node:fs/promises";
import { LidoError } from "../../api/errors.ts";
import type { Host } from "../host/host.ts";

/** @throws {LidoError} bad_request when the device has a filesystem, a partition table or another signature. @see blkid(8) */
export async function refuseFilled(host: Host, device: string): Promise<void> {
  const { code, stdout } = await host.confined({ devices: [device] }).run(
    ["blkid", "-p", "-o", "export", device],
    { okCodes: [0, 2, 8] },
  );
  if (code === 2 && stdout === "") return;
  const kind = /^(?:TYPE|PTTYPE)=(.+)$/m.exec(stdout)?.[1] ?? "data";
  throw new LidoError("bad_request", `Source "${device}" already holds ${kind}; set source.wipe=true to overwrite it`);
}

/** Erases the signatures of filesystems and partition tables. @see wipefs(8) */
export async function wipeDevice(host: Host, device: string): Promise<void> {
  await host.confined({ devices: [device] }).run(["wipefs", "-a", device]);
}

/** @returns The size of the block device at `path`. @throws {LidoError} bad_request when there is none. @see sysfs-block */
export async function deviceBytes(path: string): Promise<bigint> {
  const info = await stat(path, { bigint: true }).catch(() => undefined);
  if (!info) throw new LidoError("bad_request", `Source path '${path}' doesn't exist`);
  if (!info.isBlockDevice()) throw new LidoError("bad_request", `Source path '${path}' isn't a block device`);
  const major = (info.rdev >> 8n) & 0xfffn, minor = (info.rdev & 0xffn) | ((info.rdev >> 12n) & 0xfff00n);
  return BigInt((await readFile(`/sys/dev/block/${major}:${minor}/size`, "utf8")).trim()) * sectorBytes;
}

/** Unit of sizes in sysfs, whatever the device's own sector size is. */
const sectorBytes = 512n;
