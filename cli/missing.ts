/** Verbs of LXD's client that lido lacks, and what to use in their place. Loaded when a command is unknown. */

/** By the words of the command; the longest match counts. */
const instead: Readonly<Record<string, string>> = {
  "alias": "aliases of the shell",
  "cluster": "one daemon serves one host",
  "config metadata": '"image show" shows what an image\'s metadata says',
  "config template": "templates come with the image",
  "config trust edit": '"config trust remove" and "config trust add"',
  "config trust list-tokens": "there are none",
  "config trust revoke-token": "there are none",
  "config trust add-token": '"config set core.trust_password", and "config trust add" with a certificate',
  "export":
    'copy the instance ("copy"), or its files ("exec INSTANCE -- tar -c PATH > FILE"); "storage volume export" is for volumes',
  "file":
    '"exec INSTANCE -- cat PATH > FILE" and "exec INSTANCE -- sh -c \'cat > PATH\' < FILE"; "storage volume file" is for volumes',
  "copy --refresh": 'delete the copy and make it again; "storage volume copy --refresh" is for volumes',
  "info --resources": '"storage info POOL" shows the space of a pool',
  "image copy": '"image import" of a file',
  "image export": '"query --raw /1.0/images/FINGERPRINT/export > FILE", or "lxc image export"',
  "image refresh": '"image import" of a newer file',
  "import": '"storage volume import" is for volumes, "admin recover" for the disks of another daemon',
  "manpage": '"COMMAND --help"',
  "network": "containers have a loopback interface alone, or what a disk device or a command brings them",
  "project": 'the project "default" is the only one',
  "publish": '"image import" of a tarball, which "exec INSTANCE -- tar -c -C / ." can make',
  "remote": "LIDO_DIR chooses a daemon of this host; lxc reaches one over HTTPS",
  "shell": '"exec INSTANCE -- su -l"',
  "warning": '"admin check" looks for what is wrong, and the daemon\'s log tells it',
};

/** @param words A command line. @returns The error text for a verb of LXD that lido lacks; undefined for all others. */
export function missingVerb(words: readonly string[]): string | undefined {
  const [plain, options] = [false, true].map((isOption) => words.filter((word) => word.startsWith("-") === isOption));
  const candidates = [3, 2, 1].map((length) => plain!.slice(0, length).join(" "));
  const found = [...options!.map((option) => `${plain![0]} ${option}`), ...candidates]
    .find((verb) => Object.hasOwn(instead, verb));
  return found && `lido has no "${found}" yet; what works: ${instead[found]}`;
}

/** @param image The name as given. @returns Advice when there is no such image: users of LXD first try a server's name before a colon. */
export function missingImage(image: string): string {
  if (!/^[\w-]+:/.test(image)) return '"lido image list" shows those that are there';
  return 'images of remote servers cannot be had yet; "lido image import FILE --alias NAME" takes a tarball';
}
