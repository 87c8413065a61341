/** How a tree comes out of an archive: with its numeric owners, modes, extended attributes and, as such, ACLs. Not with tar's own option for
 * those: it takes away the ACLs of files that have them as attributes only, as in what LXD writes. @param target Where to. @param file "-" for stdin. */
export function unpackCommand(target: string, file: string, more: readonly string[] = []): string[] {
  return [
    "tar",
    "--extract",
    "--numeric-owner",
    "--same-owner",
    "--preserve-permissions",
    "--xattrs",
    "--xattrs-include=*",
    ...more,
    `--directory=${target}`,
    `--file=${file}`,
  ];
}
