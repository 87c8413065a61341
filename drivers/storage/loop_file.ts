import { constants, type FileHandle, open, rm, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { LidoError } from "../../api/errors.ts";
import { formatSize, parseSizeBytes, showBytes, showUnequalBytes } from "../../api/size.ts";
import type { Host } from "../host/host.ts";

const GiB = 1024n ** 3n;
/** @see open(2) */
const O_TMPFILE = 0x400000;
const smallestBytes = 5n * GiB, largestBytes = 30n * GiB;

/** LXD's rule for a loop pool without a size: a fifth of the filesystem that holds the file, at least 5 and at most 30 GiB.
 * @param file Backing file, which need not exist. @returns e.g. "30GiB". */
export async function defaultSize(file: string): Promise<string> {
  const { blocks, bsize } = await statfs(dirname(file), { bigint: true });
  const fifth = blocks * bsize / 5n / GiB * GiB;
  return formatSize(fifth < smallestBytes ? smallestBytes : fifth > largestBytes ? largestBytes : fifth);
}

/** Makes a sparse file; an existing file is an error. @param size As the pool's `size`. */
export async function makeLoopFile(file: string, size: string): Promise<void> {
  const handle = await open(file, "wx", 0o600);
  try {
    await setSize(handle, file, parseSizeBytes(size)!);
  } catch (error) {
    await rm(file);
    throw error;
  } finally {
    await handle.close();
  }
}

async function setSize(handle: FileHandle, file: string, sizeBytes: bigint): Promise<void> {
  try {
    await handle.truncate(Number(sizeBytes));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EFBIG" && code !== "EINVAL" && code !== "ERR_OUT_OF_RANGE") throw error;
    const size = showBytes(sizeBytes);
    throw new LidoError(
      "bad_request",
      `Invalid size ${size} of the pool: the filesystem of "${file}" has no files so large`,
    );
  }
}

/** Attaches `file` if it is not attached. @returns Its loop device. @throws {LidoError} unavailable when the file is gone. */
export async function attachLoopFile(host: Host, file: string): Promise<string> {
  const [attached] = await host.loops.find(file, { isCurrent: true });
  if (attached) return attached;
  try {
    return await host.loops.attach(file, { directIo: true });
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT") throw error;
    if (path === "/dev/loop-control") {
      throw new LidoError("unavailable", "This kernel has no loop devices (/dev/loop-control): load its module loop");
    }
    throw new LidoError("unavailable", `Source path '${file}' doesn't exist`);
  }
}

export async function detachLoopFile(host: Host, file: string): Promise<void> {
  for (const device of await host.loops.find(file)) await host.loops.detach(device);
}

/** Detaches and deletes; nothing there is no error. */
export async function removeLoopFile(host: Host, file: string): Promise<void> {
  await detachLoopFile(host, file);
  await rm(file, { force: true });
}

/** @throws {LidoError} bad_request when the file would shrink. */
async function refuseShrink(file: string, sizeBytes: bigint): Promise<void> {
  const { size } = await stat(file, { bigint: true });
  if (sizeBytes >= size) return;
  const [has, asked] = showUnequalBytes(size, sizeBytes);
  throw new LidoError(
    "bad_request",
    `Cannot shrink the pool: "${file}" has ${has}, ${asked} were asked for`,
  );
}

/** Changes nothing. @throws {LidoError} bad_request when the file would shrink, or is too large for its filesystem. */
export async function checkGrowth(file: string, sizeBytes: bigint): Promise<void> {
  await refuseShrink(file, sizeBytes);
  const { O_RDWR, O_DIRECTORY } = constants;
  let probe: FileHandle;
  try {
    probe = await open(dirname(file), O_TMPFILE | O_DIRECTORY | O_RDWR, 0o600);
  } catch {
    return; // the filesystem has no O_TMPFILE: `growFile` will find out
  }
  try {
    await setSize(probe, file, sizeBytes);
  } finally {
    await probe.close();
  }
}

/** @throws {LidoError} bad_request when the file would shrink. */
export async function growFile(file: string, sizeBytes: bigint): Promise<void> {
  await refuseShrink(file, sizeBytes);
  const handle = await open(file, "r+");
  try {
    await setSize(handle, file, sizeBytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** @returns The device, grown. @throws {LidoError} bad_request when the file would shrink. */
export async function growLoopFile(host: Host, file: string, sizeBytes: bigint): Promise<string> {
  await growFile(file, sizeBytes);
  const device = await attachLoopFile(host, file);
  await host.loops.refresh(device);
  return device;
}
