/** Replaces node:fs/promises in the daemon of the crash tests: calls that change something have a point before and after them. */
import real from "node:fs/promises";
import { change } from "./points.ts";

// Listed by name: Bun's bundler drops "export *" from a built-in module.
export {
  access,
  constants,
  copyFile,
  cp,
  lchown,
  link,
  lstat,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  stat,
  statfs,
  truncate,
  utimes,
} from "node:fs/promises";

function failure(): Error {
  return Object.assign(new Error("EIO: an injected failure"), { code: "EIO" });
}

type Call = (...args: never[]) => Promise<unknown>;

function watched<F extends Call>(name: string, call: F): F {
  return ((...args: Parameters<F>) => change(`${name} ${args[0]}`, () => call(...args), failure)) as F;
}

export const chmod = watched("chmod", real.chmod);
export const chown = watched("chown", real.chown);
export const mkdir = watched("mkdir", real.mkdir as Call) as typeof real.mkdir;
export const rename = watched("rename", real.rename);
export const rm = watched("rm", real.rm);
export const rmdir = watched("rmdir", real.rmdir);
export const symlink = watched("symlink", real.symlink);
export const unlink = watched("unlink", real.unlink);
export const writeFile = watched("writeFile", real.writeFile as Call) as typeof real.writeFile;
/** Opening only to read has no point. A file that is opened and then "fails" is closed, as by a kernel that failed. */
export const open = (async (path: string, flags: string | number, mode?: number) => {
  if (typeof flags !== "string" || flags === "r") return await real.open(path, flags, mode);
  let file: Awaited<ReturnType<typeof real.open>> | undefined;
  try {
    return await change(`open ${path}`, async () => file = await real.open(path, flags, mode), failure);
  } catch (error) {
    await file?.close();
    throw error;
  }
}) as typeof real.open;
