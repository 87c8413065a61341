import { constants } from "node:fs";
import { open, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";

/** Names of log files: the console's, and what `exec` recorded. */
const fileName = /^(console\.log|exec_[A-Za-z0-9-]+\.(stdout|stderr))$/;

/** @param directory Log directory of the instance; a missing one has no logs. */
export async function listLogs(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return names.filter((name) => fileName.test(name)).sort();
}

/** @throws {LidoError} bad_request for another name, not_found. */
export async function readLog(directory: string, name: string): Promise<Readable> {
  // `lxc info --show-log` requests this file, also for an instance that was never started. There is no liblxc here to write it: the console's log is
  // served instead.
  if (name === "lxc.log") return await readLog(directory, "console.log").catch(emptyWhenNotFound);
  const path = join(directory, checkName(name));
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(notFound);
  return file.createReadStream();
}

export async function clearLog(directory: string, name: string): Promise<void> {
  const path = join(directory, checkName(name));
  const file = await open(path, constants.O_WRONLY | constants.O_NOFOLLOW).catch(notFound);
  await file.truncate().finally(() => file.close());
}

export async function removeLog(directory: string, name: string): Promise<void> {
  if (name === "lxc.log" || name === "console.log") {
    throw new LidoError("bad_request", `${name} may not be deleted`);
  }
  await unlink(join(directory, checkName(name))).catch(notFound);
}

function checkName(name: string): string {
  if (!fileName.test(name)) throw new LidoError("bad_request", `log file name ${name} not valid`);
  return name;
}

function emptyWhenNotFound(error: unknown): Readable {
  if (!(error instanceof LidoError) || error.code !== "not_found") throw error;
  return Readable.from([]);
}

function notFound(error: NodeJS.ErrnoException): never {
  if (error.code === "ENOENT" || error.code === "ELOOP") throw new LidoError("not_found", "Log file not found");
  throw error;
}
