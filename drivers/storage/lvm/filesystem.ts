import { open } from "node:fs/promises";
import { LidoError } from "../../../api/errors.ts";
import { showUnequalBytes } from "../../../api/size.ts";
import { growExt4 } from "../../host/devices/grow_ext4.ts";
import type { ConfinedTools, Host } from "../../host/host.ts";
import { deviceBytes } from "../block_device.ts";

export type FilesystemType = "ext4" | "xfs" | "btrfs";

export const filesystemDefault: FilesystemType = "ext4";
export const packagesOf: Readonly<Record<FilesystemType, string>> = {
  ext4: "e2fsprogs",
  xfs: "xfsprogs",
  btrfs: "btrfs-progs",
};

/** The magic bytes of each filesystem and their offset on the device. @see blkid(8) */
const signatures: readonly { type: FilesystemType; offset: number; bytes: string }[] = [
  { type: "ext4", offset: 1080, bytes: "\x53\xef" },
  { type: "xfs", offset: 0, bytes: "XFSB" },
  { type: "btrfs", offset: 0x10040, bytes: "_BHRfS_M" },
];
const headBytes = 0x10048;
/** Checking a filesystem of terabytes takes hours. */
const checkTimeoutMs = 24 * 3_600_000;

/** Reads which filesystem is on a device: the device counts, not a setting. @throws {LidoError} internal when it is none that lido makes. */
export async function filesystemOn(device: string): Promise<FilesystemType> {
  const handle = await open(device, "r");
  try {
    const head = Buffer.alloc(headBytes);
    await handle.read(head, 0, headBytes, 0);
    const found = detect(head);
    if (found) return found;
  } finally {
    await handle.close();
  }
  throw new LidoError("internal", `Cannot mount "${device}": it holds no ext4, xfs or btrfs`);
}

export function detect(head: Uint8Array): FilesystemType | undefined {
  const text = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  return signatures.find(({ offset, bytes }) =>
    text.subarray(offset, offset + bytes.length).toString("latin1") === bytes
  )?.type;
}

/** The kernel does not resize a btrfs to less than this, even to grow it. @see btrfs_ioctl_resize in linux/fs/btrfs/ioctl.c */
const btrfsResizedBytesMin = 256n * 1024n * 1024n;

/** @param what Names the volume. @throws {LidoError} bad_request when its filesystem cannot be resized to so few bytes. */
export function refuseTooSmall(what: string, type: FilesystemType, sizeBytes: bigint): void {
  if (type !== "btrfs" || sizeBytes >= btrfsResizedBytesMin) return;
  const [to, least] = showUnequalBytes(sizeBytes, btrfsResizedBytesMin);
  throw new LidoError(
    "bad_request",
    `Cannot resize ${what} to ${to}: btrfs can be resized to ${least} at least`,
  );
}

/** Mount options of a snapshot. A mounted origin was frozen when the snapshot was taken: the content is complete although the log of xfs is not
 * empty, and a snapshot cannot be written to. @see xfs(5) */
export function snapshotOptions(type: FilesystemType): string[] {
  return type === "xfs" ? ["ro", "nouuid", "norecovery"] : ["ro"];
}

/** Runs mkfs and similar tools. @see mke2fs(8), mkfs.xfs(8), mkfs.btrfs(8) */
export class Filesystems {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** Confined, because a container wrote the device's content, if only through the kernel. */
  #on(device: string): ConfinedTools {
    // CAP_SYS_ADMIN: the tools set the device's block size.
    return this.#host.confined({ devices: [device], capabilities: ["CAP_SYS_ADMIN"] });
  }

  /** @param options.isZeroed Whether the device reads as zeros. @param options.words Further arguments for mkfs, from the user. */
  async format(
    device: string,
    type: FilesystemType,
    options: { isZeroed: boolean; words: readonly string[] },
  ): Promise<void> {
    const own: Record<FilesystemType, readonly string[]> = {
      // Inode tables that are zeros already need not be written: a thin volume stays empty.
      ext4: ["-q", "-F", "-E", options.isZeroed ? "nodiscard,assume_storage_prezeroed=1" : "nodiscard"],
      xfs: ["-q", "-f", "-K"],
      btrfs: ["-q", "-f", "--nodiscard"],
    };
    await this.#on(device).run([`mkfs.${type}`, ...own[type], ...options.words, device]);
  }

  /** Grows to the size of the device. @param path Mount point. */
  async grow(device: string, type: FilesystemType, path: string): Promise<void> {
    if (type === "ext4") growExt4(path, await deviceBytes(device));
    else if (type === "xfs") await this.#host.run(["xfs_growfs", path]);
    else await this.#host.run(["btrfs", "filesystem", "resize", "max", path]);
  }

  /** The filesystem is unmounted. @throws {CommandError} When the data does not fit. */
  async shrinkExt4(device: string, sizeBytes: bigint): Promise<void> {
    // Exit code 1: errors were found and corrected.
    await this.#on(device).run(["e2fsck", "-f", "-y", device], { okCodes: [0, 1], timeoutMs: checkTimeoutMs });
    await this.#on(device).run(["resize2fs", device, `${sizeBytes / 1024n}K`], { timeoutMs: checkTimeoutMs });
  }

  /** @param path Mount point. */
  async shrinkBtrfs(path: string, sizeBytes: bigint): Promise<void> {
    await this.#host.run(["btrfs", "filesystem", "resize", String(sizeBytes), path], { timeoutMs: checkTimeoutMs });
  }

  /** Gives a copy a UUID of its own: xfs and btrfs cannot mount two filesystems of one UUID at once; ext4 can. */
  async renewUuid(device: string, type: FilesystemType): Promise<void> {
    if (type === "xfs") await this.#on(device).run(["xfs_admin", "-U", "generate", device]);
    // Only the metadata UUID in the superblocks changes, whatever the size: the blocks keep the old one, which the superblock has beside the new.
    if (type === "btrfs") await this.#on(device).run(["btrfstune", "-f", "-m", device]);
  }
}
