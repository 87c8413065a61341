import { readFile, realpath } from "node:fs/promises";
import { basename } from "node:path";
import { LidoError } from "../../api/errors.ts";
import type { Host } from "../host/host.ts";

const sectorBytes = 512n;

/** @param device Path of a block device. @returns Its size in bytes. @see sysfs(5) */
export async function deviceBytes(device: string): Promise<bigint> {
  const name = basename(await realpath(device)).replaceAll("/", "!");
  return BigInt((await readFile(`/sys/class/block/${name}/size`, "utf8")).trim()) * sectorBytes;
}

/** @throws {LidoError} bad_request when the device holds a filesystem, partitions or the like. @see blkid(8) */
export async function refuseFilled(host: Host, device: string, wipe: boolean): Promise<void> {
  if (wipe) return;
  const { code, stdout } = await host.run(["blkid", "-p", "-o", "export", device], { okCodes: [0, 2, 8] });
  if (code === 2 && stdout === "") return;
  const kind = /^(?:TYPE|PTTYPE)=(.+)$/m.exec(stdout)?.[1] ?? "data";
  throw new LidoError("bad_request", `Source "${device}" already holds ${kind}; set source.wipe=true to overwrite it`);
}
