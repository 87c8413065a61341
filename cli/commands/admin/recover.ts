import type { Config, FoundPool, RecoverPool, RecoverResult, RecoverVolume, StoragePool } from "../../../api/types.ts";
import { UsageError } from "../../client/errors.ts";
import type { Io } from "../../verb.ts";
import type { Prompter } from "./prompter.ts";

interface RecoverFlags {
  yes: boolean;
  pool: string[];
  preseed: boolean;
  force: boolean;
  dropImages: boolean;
}

/** Asks and reports as `lxd recover` does; asks nothing with --yes or --preseed.
 * @returns 1 when a found volume or pool was not recovered. */
export async function recover(io: Io, flags: RecoverFlags): Promise<number> {
  const { client } = io;
  const given = [...flags.pool.map(parsePool), ...(flags.preseed ? await readPools() : [])];
  const isGiven = ({ name }: { name: string }) => given.some((pool) => pool.name === name);
  // The daemon decides about a known pool that is also given.
  const known = (await client.get<StoragePool[]>("/1.0/storage-pools?recursion=1")).filter((pool) => !isGiven(pool));
  const found = (await client.get<FoundPool[]>("/internal/recover/pools"))
    .filter((pool) => !isGiven(pool));
  if (flags.yes || flags.preseed) {
    const pools = [...known.map(({ name }) => ({ name })), ...given, ...found];
    return await carryOut(io, pools, flags, undefined);
  }
  const { Prompter } = await import("./prompter.ts");
  const prompter = new Prompter(io);
  io.out("This server currently has the following storage pools:\n");
  for (const { name, driver } of known) io.out(` - "${name}" (driver "${driver}")\n`);
  if (known.length === 0) io.out(" (none)\n");
  const pools: RecoverPool[] = [...given];
  for (const pool of found) {
    const question =
      `Storage pool "${pool.name}" (driver "${pool.driver}", source "${pool.config.source}") is not known. Recover it?`;
    if (await prompter.yes(question, true)) pools.push(pool);
  }
  while (await prompter.yes("Would you like to recover another storage pool?", false)) {
    pools.push(await askPool(prompter, [...known, ...pools].map(({ name }) => name), await drivers(io)));
  }
  io.out("The recovery process will be scanning the following storage pools:\n");
  for (const { name, driver } of known) io.out(` - EXISTING: "${name}" (driver "${driver}")\n`);
  for (const { name, driver, config } of pools) {
    io.out(` - NEW: "${name}" (driver "${driver}", source "${config?.source ?? ""}")\n`);
  }
  if (!await prompter.yes("Would you like to continue with scanning for lost volumes?", true)) return 0;
  return await carryOut(io, [...known.map(({ name }) => ({ name })), ...pools], flags, prompter);
}

async function carryOut(
  io: Io,
  pools: RecoverPool[],
  flags: RecoverFlags,
  prompter: Prompter | undefined,
): Promise<number> {
  const post = async (verb: string) => {
    const body = { pools, force: flags.force, drop_images: flags.dropImages };
    return (await io.client.request("POST", `/internal/recover/${verb}`, body)).metadata as RecoverResult;
  };
  if (prompter) io.out("Scanning for unknown volumes...\n");
  let seen = await post("validate");
  for (; seen.DependencyErrors.length > 0; seen = await post("validate")) {
    if (!prompter) throw new UsageError(`You are currently missing the following: ${seen.DependencyErrors.join(", ")}`);
    show(io, seen, pools);
    const missing = seen.DependencyErrors.map((text) => ` - ${text}\n`).join("");
    io.out(`You are currently missing the following:\n${missing}`);
    await prompter.text("Please create those missing entries and then hit ENTER", "", () => undefined);
  }
  show(io, seen, pools);
  const isNothing = seen.UnknownVolumes.length === 0 && !pools.some(({ driver }) => driver) &&
    !(flags.dropImages && seen.UnknownImages.length > 0);
  if (isNothing) {
    if (seen.Problems.length > 0) return 1;
    if (!io.quiet) io.out("No unknown storage pools or volumes found. Nothing to do.\n");
    return 0;
  }
  if (prompter && !await prompter.yes("Would you like those to be recovered?", false)) return 0;
  if (prompter) io.out("Starting recovery...\n");
  const { UnknownVolumes: recovered, Problems: problems } = await post("import");
  const failed = problems.filter((text) => !seen.Problems.includes(text));
  for (const text of failed) io.err(`Not recovered: ${text}\n`);
  if (!io.quiet) io.out(`${recovered.length} recovered\n`);
  return problems.length > 0 ? 1 : 0;
}

function show(io: Io, { UnknownVolumes, Problems, UnknownImages }: RecoverResult, pools: readonly RecoverPool[]): void {
  const unknown = pools.filter(({ driver }) => driver);
  if (unknown.length > 0 && !io.quiet) {
    io.out("The following unknown storage pools have been found:\n");
    for (const { name, driver } of unknown) io.out(` - Storage pool "${name}" of type "${driver}"\n`);
  }
  if (UnknownVolumes.length > 0 && !io.quiet) {
    io.out("The following unknown volumes have been found:\n");
    for (const volume of UnknownVolumes) io.out(line(volume));
  }
  if (UnknownImages.length > 0 && !io.quiet) {
    io.out(`Unpacked copies of unknown images: ${UnknownImages.length} (--drop-images deletes them)\n`);
  }
  for (const text of Problems) io.err(`Cannot be recovered: ${text}\n`);
}

function line({ name, type, pool, project, snapshotCount, notes }: RecoverVolume): string {
  const noun = type === "container" ? "Container" : "Volume";
  const text = ` - ${noun} "${name}" on pool "${pool}" in project "${project}" (includes ${snapshotCount} snapshots)\n`;
  return text + notes.map((note) => `   ${note}\n`).join("");
}

async function drivers(io: Io): Promise<string[]> {
  const { environment } = await io.client.get<{ environment: { storage_supported_drivers: { Name: string }[] } }>(
    "/1.0",
  );
  return environment.storage_supported_drivers.map(({ Name }) => Name);
}

async function askPool(
  prompter: Prompter,
  taken: readonly string[],
  available: readonly string[],
): Promise<RecoverPool> {
  const name = await prompter.text(
    "Name of the storage pool",
    "",
    (answer) =>
      answer === "" ? "an answer is needed" : taken.includes(answer) ? `"${answer}" is there already` : undefined,
  );
  const driver = await prompter.choice("Name of the storage backend", available, available[0]!);
  const source = await prompter.text(
    "Source of the storage pool (block device, volume group, dataset, path, ... as applicable)",
    "",
    () => undefined,
  );
  const config: Config = source === "" ? {} : { source };
  while (true) {
    const answer = await prompter.text(
      "Additional storage pool configuration property (KEY=VALUE, empty when done)",
      "",
      (text) => text === "" || /^[^=\s]+=/.test(text) ? undefined : `"${text}" is not KEY=VALUE`,
    );
    if (answer === "") return { name, driver, config };
    config[answer.slice(0, answer.indexOf("="))] = answer.slice(answer.indexOf("=") + 1);
  }
}

/** "name=driver,source=/x,key=value". @throws {UsageError} */
function parsePool(text: string): RecoverPool {
  const [head, ...rest] = text.split(",");
  const parts = /^([^=]+)=([^=]+)$/.exec(head!);
  const pairs = rest.map((pair) => /^([^=]+)=(.*)$/s.exec(pair));
  if (!parts || pairs.includes(null)) {
    throw new UsageError(`Invalid pool "${text}": name=driver[,source=...][,key=value...] is allowed`);
  }
  return {
    name: parts[1]!,
    driver: parts[2]!,
    config: Object.fromEntries(pairs.map((pair) => [pair![1]!, pair![2]!])),
  };
}

async function readPools(): Promise<RecoverPool[]> {
  const { readPreseed } = await import("./init.ts");
  const { storage_pools: pools = [] } = await readPreseed();
  return pools.map(({ name, driver, config = {} }) => ({ name, driver, config }));
}
