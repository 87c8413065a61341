import { LidoError } from "../../api/errors.ts";

/** A user as the container's own files know it. @see passwd(5), group(5) */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
  readonly shell: string;
  /** Supplementary groups. */
  readonly groups: readonly number[];
}

const idMax = 4294967294;

/** Reads a file of the container. @returns undefined when there is none. */
export type ReadFile = (path: string) => Promise<Uint8Array | undefined>;

/** @param user A name, or a number.
 * @throws {LidoError} bad_request for an unknown user, or if one of the files is no regular file. */
export async function findAccount(readFile: ReadFile, user: string): Promise<Account> {
  for (const line of await lines(readFile, "/etc/passwd")) {
    const [name, , uid, gid, , home, shell] = line.split(":");
    if (name === undefined || (name !== user && uid !== user)) continue;
    if (!isId(uid) || !isId(gid)) {
      throw new LidoError("bad_request", `The entry of user "${user}" in the instance's /etc/passwd is damaged`);
    }
    return {
      name,
      uid: Number(uid),
      gid: Number(gid),
      home: home?.startsWith("/") ? home : "/",
      shell: shell?.startsWith("/") ? shell : "/bin/sh",
      groups: await groupsOf(readFile, name),
    };
  }
  throw new LidoError("bad_request", `User "${user}" not found in the instance's /etc/passwd`);
}

async function groupsOf(readFile: ReadFile, user: string): Promise<number[]> {
  return (await lines(readFile, "/etc/group")).flatMap((line) => {
    const [, , gid, members = ""] = line.split(":");
    return isId(gid) && members.split(",").includes(user) ? [Number(gid)] : [];
  });
}

function isId(text: string | undefined): boolean {
  return text !== undefined && /^\d{1,10}$/.test(text) && Number(text) <= idMax;
}

async function lines(readFile: ReadFile, path: string): Promise<string[]> {
  const bytes = await readFile(path);
  return bytes ? new TextDecoder().decode(bytes).split("\n") : [];
}
