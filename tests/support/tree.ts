/** File trees with everything that a copy may lose. */
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { command, succeed } from "./command.ts";

/** Describes every file of a tree, by path. */
export function tree(root: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (at: string, name: string) => {
    const info = lstatSync(at);
    const content = info.isFile() ? readFileSync(at, "base64") : info.isSymbolicLink() ? readlinkSync(at) : "";
    found[name] = [info.mode.toString(8), info.uid, info.gid, info.isFile() ? info.nlink : "", content].join(" ");
    if (info.isDirectory()) { for (const entry of readdirSync(at)) walk(join(at, entry), `${name}/${entry}`); }
  };
  walk(root, "");
  return found;
}

/** Extended attributes, capabilities and access lists of all files in it, as getfattr and getfacl print them. */
export async function attributes(root: string): Promise<string[]> {
  const tools = [["getfattr", "-h", "-m", "-", "-d", "-R", "--", "."], ["getfacl", "-n", "-R", "-P", "--", "."]];
  const told = await Promise.all(tools.map((argv) => command(argv, { cwd: root })));
  // Sorted: the order of files depends on the filesystem.
  return told.flatMap(({ out }) => out.split("\n\n").sort());
}

/** Fills an empty directory with files of every kind, with attributes and access lists. */
export async function furnishTree(root: string): Promise<void> {
  mkdirSync(join(root, "dir with blanks"));
  writeFileSync(join(root, "file"), "x".repeat(300_000));
  chownSync(join(root, "file"), 1_000_000, 2_000_000_000);
  chmodSync(join(root, "file"), 0o4755);
  linkSync(join(root, "file"), join(root, "dir with blanks/hard"));
  symlinkSync("../../outside", join(root, "link"));
  symlinkSync(root, join(root, "absolute"));
  writeFileSync(join(root, "ä".repeat(120)), "a long name");
  await succeed(["setfattr", "-n", "user.a", "-v", "b", join(root, "file")]);
  await succeed(["setfacl", "-m", "u:1234:r", join(root, "file")]);
  await succeed(["setcap", "cap_net_raw+ep", join(root, "dir with blanks/hard")]);
}
