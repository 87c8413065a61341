import { LidoError } from "../../api/errors.ts";
import { readBeneath } from "../../drivers/host/beneath.ts";

/** A user as the container's own files know it. @see passwd(5), group(5) */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
  readonly shell: string;
  /** Supplementary ones. */
  readonly groups: readonly number[];
}

const idMax = 4294967294;

/** @param root The container's root as the host sees it. @param user A name, or a number.
 * @throws {LidoError} bad_request when there is none, or the files are no files. */
export function findAccount(root: string, user: string): Account {
  for (const line of lines(root, "/etc/passwd")) {
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
      groups: groupsOf(root, name),
    };
  }
  throw new LidoError("bad_request", `User "${user}" not found in the instance's /etc/passwd`);
}

function groupsOf(root: string, user: string): number[] {
  return lines(root, "/etc/group").flatMap((line) => {
    const [, , gid, members = ""] = line.split(":");
    return isId(gid) && members.split(",").includes(user) ? [Number(gid)] : [];
  });
}

function isId(text: string | undefined): boolean {
  return text !== undefined && /^\d{1,10}$/.test(text) && Number(text) <= idMax;
}

function lines(root: string, path: string): string[] {
  const bytes = readBeneath(root, path, { inRoot: true });
  return bytes ? new TextDecoder().decode(bytes).split("\n") : [];
}
