import { LidoError } from "../../../api/errors.ts";
import { CommandError, type Host } from "../../host/host.ts";
import { reasonOf } from "./output.ts";
import { ZfsTool } from "./tool.ts";

/** @see libzfs_error_init and zfs_version_print in OpenZFS */
const moduleMissing =
  /The ZFS modules? (?:are|is|cannot be) |Failed to initialize the libzfs library|zfs_version_kernel\(\) failed|\/dev\/zfs and \S+ are required/;

/** Whether a tool failed because its kernel module is not loaded. */
export function isModuleMissing(error: unknown): boolean {
  return error instanceof CommandError && moduleMissing.test(error.stderr);
}

/** Loads the module if it was missing. @param error Why a tool failed. @returns Whether that was the cause. @throws {LidoError} unavailable. */
export async function loadModule(host: Host, error: unknown): Promise<boolean> {
  if (!isModuleMissing(error)) return false;
  try {
    await host.run(["modprobe", "-b", "zfs"]);
    return true;
  } catch (failure) {
    if (!(failure instanceof CommandError)) throw failure;
    const reason = reasonOf(failure.stderr).split("\n")[0];
    throw new LidoError(
      "unavailable",
      `The kernel module "zfs" cannot be loaded (Debian package zfs-dkms)${reason ? `: ${reason}` : ""}`,
    );
  }
}

/** Whether this host has ZFS, both tools and module. */
export async function probe(host: Host): Promise<{ version: string } | { missing: string }> {
  for (const tool of ["zfs", "zpool"]) {
    if (!await host.which(tool)) return { missing: `"${tool}" is not installed (Debian package zfsutils-linux)` };
  }
  const tool = new ZfsTool(host);
  try {
    const { tools, module } = await tool.version().catch(async (error) => {
      if (!await loadModule(host, error)) throw error;
      return await tool.version();
    });
    // Tools and module come from packages of their own, and work together across versions.
    return { version: tools === module ? module : `${module} (tools ${tools})` };
  } catch (error) {
    if (error instanceof LidoError || error instanceof CommandError) return { missing: error.message };
    throw error;
  }
}
