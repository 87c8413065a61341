/** How a tree comes out of an archive: with its numeric owners, modes, extended attributes and ACLs. @param target Where to. @param file "-" for stdin. */
export function unpackCommand(target: string, file: string, more: readonly string[] = []): string[] {
  return [
    "tar",
    "--extract",
    "--numeric-owner",
    "--same-owner",
    "--preserve-permissions",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    ...more,
    `--directory=${target}`,
    `--file=${file}`,
  ];
}
