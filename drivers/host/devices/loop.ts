import { closeSync, existsSync, openSync, readdirSync, readFileSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { basename } from "node:path";
import type { Loops } from "../host.ts";
import { check, libc, SystemCallError } from "../ffi/libc.ts";

/** @see loop(4), linux/loop.h */
const LOOP_CTL_GET_FREE = 0x4c82, LOOP_CONFIGURE = 0x4c0a, LOOP_CLR_FD = 0x4c01, LOOP_SET_CAPACITY = 0x4c07;
const LO_FLAGS_DIRECT_IO = 16;
const EBUSY = 16, EINVAL = 22, ENXIO = 6;
/** struct loop_config: fd, block size, struct loop_info64 (232 bytes), eight reserved words. */
const configBytes = 4 + 4 + 232 + 64, flagsOffset = 8 + 8 * 5 + 4 * 3, nameOffset = 8 + 8 * 5 + 4 * 4, nameBytes = 64;
const freeTries = 32;

export class HostLoops implements Loops {
  // deno-lint-ignore require-await -- async as the contract
  async attach(file: string, options: { directIo?: boolean } = {}): Promise<string> {
    const backing = openSync(file, "r+");
    try {
      const control = openSync("/dev/loop-control", "r+");
      try {
        return attachTo(control, backing, file, options.directIo ?? false);
      } finally {
        closeSync(control);
      }
    } finally {
      closeSync(backing);
    }
  }

  async detach(device: string): Promise<void> {
    const fd = openSync(device, "r");
    try {
      check(`detach ${device}`, libc.ioctl(fd, LOOP_CLR_FD, null));
    } catch (error) {
      if (!(error instanceof SystemCallError && error.errno === ENXIO)) throw error;
    } finally {
      closeSync(fd);
    }
    await released(device);
  }

  async find(file: string, options: { isCurrent?: boolean } = {}): Promise<string[]> {
    const real = await realpath(file).catch(() => file);
    return (await this.list())
      .filter((one) => one.file === real && !(options.isCurrent && one.isDeleted))
      .map(({ device }) => device);
  }

  /** @see Documentation/ABI/testing/sysfs-block-loop */
  // deno-lint-ignore require-await -- as above
  async list(): Promise<{ device: string; file: string; isDeleted: boolean }[]> {
    return readdirSync("/sys/block").filter((name) => name.startsWith("loop")).flatMap((name) => {
      let backing: string;
      try {
        backing = readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").replace(/\n$/, "");
      } catch {
        return []; // not attached
      }
      const file = backing.replace(/ \(deleted\)$/, "");
      return [{ device: `/dev/${name}`, file, isDeleted: file !== backing }];
    });
  }

  // deno-lint-ignore require-await -- as above
  async refresh(device: string): Promise<void> {
    const fd = openSync(device, "r");
    try {
      check(`resize ${device}`, libc.ioctl(fd, LOOP_SET_CAPACITY, null));
    } finally {
      closeSync(fd);
    }
  }
}

/** Waits until the kernel has detached the device. A process that is getting its own mount namespace briefly has a copy of every mount, also of one
 * unmounted meanwhile if mounts are not shared; the kernel detaches the device with the last copy. The wait has a limit. */
async function released(device: string): Promise<void> {
  const file = `/sys/block/${basename(device)}/loop/backing_file`;
  for (const deadline = performance.now() + releaseMs; existsSync(file) && performance.now() < deadline;) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
const releaseMs = 2000;

/** Another process may take the device after it was found to be free: then the next free one is tried. */
function attachTo(control: number, backing: number, file: string, directIo: boolean): string {
  for (let attempt = 0; attempt < freeTries; attempt++) {
    const device = `/dev/loop${check("find a free loop device", libc.ioctl(control, LOOP_CTL_GET_FREE, null))}`;
    const fd = openSync(device, "r+");
    try {
      try {
        configure(fd, backing, file, directIo);
      } catch (error) {
        // The file's filesystem has no direct I/O, or needs another block size: use buffered I/O.
        if (!(directIo && error instanceof SystemCallError && error.errno === EINVAL)) throw error;
        configure(fd, backing, file, false);
      }
      return device;
    } catch (error) {
      if (!(error instanceof SystemCallError && error.errno === EBUSY)) throw error;
    } finally {
      closeSync(fd);
    }
  }
  throw new Error(`Cannot attach "${file}": every free loop device was taken by others ${freeTries} times`);
}

function configure(fd: number, backing: number, file: string, directIo: boolean): void {
  const config = new Uint8Array(configBytes);
  const view = new DataView(config.buffer);
  view.setUint32(0, backing, true);
  view.setUint32(flagsOffset, directIo ? LO_FLAGS_DIRECT_IO : 0, true);
  // For losetup's listing only; longer names are cut.
  config.set(new TextEncoder().encode(file).subarray(0, nameBytes - 1), nameOffset);
  check(`attach "${file}"`, libc.ioctl(fd, LOOP_CONFIGURE, config));
}
