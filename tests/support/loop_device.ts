import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createHost } from "../../drivers/host/real.ts";

const host = createHost();

/** Makes a block device on a file in `base`; `undo` detaches it. @returns Its path. */
export async function loopDevice(
  base: string,
  name: string,
  undo: AsyncDisposableStack,
  sizeMiB = 512,
): Promise<string> {
  const file = join(base, `${name}.img`);
  await writeFile(file, "");
  await truncate(file, sizeMiB * 1024 * 1024);
  const device = await host.loops.attach(file);
  undo.defer(() => host.loops.detach(device));
  return device;
}
