import type { Config } from "../../../api/types.ts";
import type { Prompter } from "./prompter.ts";

export interface PoolAnswers {
  readonly name: string;
  readonly driver: string;
  readonly config: Config;
}

export interface Answers {
  readonly pool?: PoolAnswers;
  /** Whether to print the settings as YAML too. */
  readonly print: boolean;
}

const nameForm = /^[^\s\/\-][^\s\/]{0,62}$/;

/** The storage drivers of a host. */
export interface HostDrivers {
  readonly available: readonly string[];
  /** The one to propose. */
  readonly best: string;
  /** The other drivers, each with what is missing and the package that brings it. */
  readonly missing: ReadonlyMap<string, string>;
}

/** Asks the questions of `lxd init` that lido has. @param taken Names of existing pools. */
export async function ask(prompter: Prompter, drivers: HostDrivers, taken: readonly string[]): Promise<Answers> {
  const isWanted = await prompter.yes("Do you want to configure a new storage pool?", true);
  const pool = isWanted ? await askPool(prompter, drivers, taken) : undefined;
  const print = await prompter.yes('Would you like a YAML "lido admin init" preseed to be printed?', false);
  return { ...(pool ? { pool } : {}), print };
}

async function askPool(
  prompter: Prompter,
  { available, best, missing }: HostDrivers,
  taken: readonly string[],
): Promise<PoolAnswers> {
  const name = await prompter.text(
    "Name of the new storage pool",
    taken.includes("default") ? "" : "default",
    (answer) => {
      if (taken.includes(answer)) {
        return `The requested storage pool "${answer}" already exists. Please choose another name.`;
      }
      return nameForm.test(answer)
        ? undefined
        : `"${answer}" is not a name: no space, slash or leading dash is allowed`;
    },
  );
  for (const [driver, reason] of missing) prompter.tell(`Storage backend "${driver}" cannot be used here: ${reason}`);
  const driver = await prompter.choice("Name of the storage backend to use", available, best);
  const config = driver === "dir" ? {} : await askSource(prompter, driver);
  return { name, driver, config };
}

async function askSource(prompter: Prompter, driver: string): Promise<Config> {
  const noun = { zfs: "ZFS pool", lvm: "LVM pool" }[driver] ?? "BTRFS pool";
  if (!await prompter.yes(`Create a new ${noun}?`, true)) {
    const what =
      { zfs: "Name of the existing ZFS pool or dataset", lvm: "Name of the existing LVM volume group" }[driver];
    const source = await prompter.text(what ?? "Path of the existing BTRFS filesystem", "", notEmpty);
    return { source };
  }
  if (await prompter.yes("Would you like to use an existing empty block device (e.g. a disk or partition)?", false)) {
    return { source: await prompter.text("Path to the existing block device", "", notEmpty) };
  }
  const size = await prompter.text(
    "Size in GiB of the new loop device (1GiB minimum; empty for a fifth of the disk)",
    "",
    (answer) => answer === "" || /^[1-9]\d*(GiB)?$/.test(answer) ? undefined : `"${answer}" is not a number of GiB`,
  );
  return size === "" ? {} : { size: `${size.replace(/GiB$/, "")}GiB` };
}

function notEmpty(answer: string): string | undefined {
  return answer === "" ? "an answer is needed" : undefined;
}
