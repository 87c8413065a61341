import { readFile, stat } from "node:fs/promises";
import { LidoError } from "../../api/errors.ts";
import type { Host } from "../host/host.ts";

/** @throws {LidoError} bad_request when the device holds a filesystem, partitions or the like. @see blkid(8) */
export async function refuseFilled(host: Host, device: string): Promise<void> {
  const { code, stdout } = await host.confined({ devices: [device] }).run(
    ["blkid", "-p", "-o", "export", device],
    { okCodes: [0, 2, 8] },
  );
  if (code === 2 && stdout === "") return;
  const kind = /^(?:TYPE|PTTYPE)=(.+)$/m.exec(stdout)?.[1] ?? "data";
  throw new LidoError("bad_request", `Source "${device}" already holds ${kind}; set source.wipe=true to overwrite it`);
}

/** Takes the signatures of filesystems and partition tables off. @see wipefs(8) */
export async function wipeDevice(host: Host, device: string): Promise<void> {
  await host.confined({ devices: [device] }).run(["wipefs", "-a", device]);
}

/** @throws {LidoError} bad_request when there is no block device at `path`. @returns Its size. @see sysfs-block */
export async function deviceBytes(path: string): Promise<bigint> {
  const info = await stat(path, { bigint: true }).catch(() => undefined);
  if (!info) throw new LidoError("bad_request", `Source path '${path}' doesn't exist`);
  if (!info.isBlockDevice()) throw new LidoError("bad_request", `Source path '${path}' isn't a block device`);
  const major = (info.rdev >> 8n) & 0xfffn, minor = (info.rdev & 0xffn) | ((info.rdev >> 12n) & 0xfff00n);
  return BigInt((await readFile(`/sys/dev/block/${major}:${minor}/size`, "utf8")).trim()) * sectorBytes;
}

/** Whatever the device's own sectors are. */
const sectorBytes = 512n;
