import { randomInt } from "node:crypto";
import { LidoError } from "../../api/errors.ts";

/** Checks an instance name: a host name of one label, as LXD's. @throws {LidoError} bad_request. */
export function checkInstanceName(name: string): void {
  if (name.includes("/")) throw new LidoError("bad_request", 'The character "/" is reserved for snapshots');
  const reason = reasonAgainst(name);
  if (reason) throw new LidoError("bad_request", `Invalid instance name: ${reason}`);
}

function reasonAgainst(name: string): string | undefined {
  if (name.length < 1 || name.length > 63) return "Name must be 1-63 characters long";
  if (name.startsWith("-")) return 'Name must not start with "-" character';
  if (/^[0-9]/.test(name)) return "Name must not start with a number";
  if (name.endsWith("-")) return 'Name must not end with "-" character';
  if (!/^[A-Za-z0-9-]+$/.test(name)) return "Name can only contain alphanumeric and hyphen characters";
  return undefined;
}

/** @throws {LidoError} bad_request with LXD's texts. */
export function checkSnapshotName(name: string): void {
  if (name.includes("/")) throw new LidoError("bad_request", 'Invalid snapshot name: Cannot contain "/"');
  if (name === "" || /\s/.test(name) || name === "." || name === ".." || name.includes("\0") || name.length > 200) {
    throw new LidoError("bad_request", "Invalid instance snapshot name: Cannot contain space or / characters");
  }
}

const adjectives =
  "able brave brisk calm clear daring deep eager fair fast firm fond fresh gentle glad grand happy humble keen kind lively loyal lucky merry mild neat noble open proud quick quiet rapid ready sharp smart solid steady sunny sure swift tidy true vivid warm wise witty young"
    .split(" ");
const animals =
  "ant badger bat bear beaver bee bison boar camel cat cobra cod cow crab crane crow deer dingo dog dove duck eagle eel elk emu falcon ferret finch fox frog gecko gibbon goat goose gull hare hawk hen heron horse ibex jay koala lamb lark lion llama lynx mole moose moth mouse mule newt otter owl ox panda pig pika pony puma quail rabbit ram rat raven robin seal shark sheep shrew skunk sloth snail snake stork swan tiger toad trout turtle viper vole wasp whale wolf wombat wren yak zebra"
    .split(" ");

/** A name for an instance that was given none, such as "brave-otter".
 * @param taken Tells whether a name is in use. */
export function generateName(taken: (name: string) => boolean): string {
  for (let attempt = 0; attempt < 100; attempt++) {
    const name = `${adjectives[randomInt(adjectives.length)]}-${animals[randomInt(animals.length)]}`;
    if (!taken(name)) return name;
  }
  // Most pairs are taken: a number keeps the odds good however many instances there are.
  for (;;) {
    const name = `${adjectives[randomInt(adjectives.length)]}-${animals[randomInt(animals.length)]}-${
      randomInt(1_000_000)
    }`;
    if (!taken(name)) return name;
  }
}
