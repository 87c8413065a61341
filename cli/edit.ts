/** Changing a thing in an editor, as lxc does: a file with its present fields, opened again until the daemon accepts it or the user gives up. */
import { ApiError, reasonOf, UsageError } from "./client/errors.ts";
import type { Interruption } from "./output/progress.ts";
import type { Io } from "./verb.ts";

/** Tried in this order when neither $VISUAL nor $EDITOR is set. */
const editors = ["sensible-editor", "editor", "vi", "nano"];

/** @returns The command's arguments. As in lxc they are separated by blanks, without a shell. */
async function editorWords(): Promise<string[]> {
  const chosen = (process.env.VISUAL || process.env.EDITOR || "").split(/\s+/).filter(Boolean);
  if (chosen.length > 0) return chosen;
  const { accessSync, constants } = await import("node:fs");
  const { join } = await import("node:path");
  const directories = (process.env.PATH ?? "").split(":").filter(Boolean);
  for (const name of editors) {
    for (const directory of directories) {
      try {
        accessSync(join(directory, name), constants.X_OK);
        return [name];
      } catch {
        // perhaps in another directory
      }
    }
  }
  throw new UsageError(`No editor found: set EDITOR, or install one of ${editors.join(", ")}`);
}

async function openEditor(words: readonly string[], path: string, ending: AbortSignal): Promise<void> {
  const { runForeground } = await import("../drivers/host/process/foreground.ts");
  let code: number;
  try {
    code = await runForeground([...words, path], ending);
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === "ENOENT" ? "no such program" : (error as Error).message;
    throw new UsageError(`Cannot run the editor "${words[0]}": ${reason}; EDITOR names another`);
  }
  if (code !== 0) throw new UsageError(`The editor "${words[0]}" ended with ${code}: nothing was changed`);
}

const endings = { SIGHUP: 1, SIGTERM: 15 } as const;

/** HUP (the terminal was closed) and TERM while the temporary file exists, so that it can be deleted first. */
class Ending implements Disposable {
  readonly #abort = new AbortController();
  readonly #onSignal = (name: NodeJS.Signals) => this.#abort.abort(name);

  /** @param ignored As `ignoredSignals` returns it. */
  constructor(ignored: bigint) {
    for (const [name, number] of Object.entries(endings)) {
      if ((ignored >> BigInt(number - 1) & 1n) === 0n) process.on(name, this.#onSignal);
    }
  }

  /** The abort reason is the signal's name. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The exit code for the signal: 128 and its number. */
  get code(): number | undefined {
    return this.signal.aborted ? 128 + endings[this.signal.reason as keyof typeof endings] : undefined;
  }

  /** @throws When the signal comes before the work's end. */
  async before<T>(work: Promise<T>): Promise<T> {
    const { signal } = this;
    const come = Promise.withResolvers<never>();
    const onAbort = () => come.reject(new Error(`Ended by ${signal.reason}`));
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    try {
      return await Promise.race([work, come.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  [Symbol.dispose](): void {
    for (const name of Object.keys(endings)) process.off(name, this.#onSignal);
  }
}

/** Waits for a line. @returns Whether there was one: false at the end of the file. @throws {Error} When it is interrupted. */
async function enter(interruption: Interruption): Promise<boolean> {
  const { read } = await import("node:fs");
  const cancelled = new Promise<never>((_, reject) =>
    interruption.signal.addEventListener("abort", () => reject(interruption.signal.reason as Error))
  );
  const line = new Promise<boolean>((resolve) =>
    read(0, new Uint8Array(1024), 0, 1024, null, (error, count) => resolve(error === null && count > 0))
  );
  return await Promise.race([line, cancelled]);
}

/** @param content The file's content at first: comments that explain it, and YAML.
 * @param apply Gets the text when the editor ends; its error is shown, and the editor opens again.
 * @returns Whether anything was changed. @throws {Error} When the user gives up. */
export async function edit(io: Io, content: string, apply: (text: string) => Promise<void>): Promise<boolean> {
  const { mkdtemp, readFile, rm, writeFile } = await import("node:fs/promises");
  const { tmpdir } = await import("node:os");
  const { join } = await import("node:path");
  const { Interruption } = await import("./output/progress.ts");
  const { ignoredSignals } = await import("./exec/signals.ts");
  const words = await editorWords();
  using ending = new Ending(await ignoredSignals());
  const directory = await mkdtemp(join(tmpdir(), "lido-edit-"));
  const file = join(directory, "edit.yaml");
  let isKept = false;
  try {
    await writeFile(file, content, { mode: 0o600 });
    while (true) {
      await openEditor(words, file, ending.signal);
      // From here on a Ctrl-C interrupts us, not the editor; the file is then deleted.
      using interruption = new Interruption();
      const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
        throw new UsageError(
          error.code === "ENOENT"
            ? `The editor "${words[0]}" deleted the file that it was given: nothing was changed`
            : `Cannot read what the editor "${words[0]}" wrote: ${reasonOf(error)}; nothing was changed`,
        );
      });
      if (text === content) return false;
      try {
        await ending.before(apply(text));
        return true;
      } catch (error) {
        if (ending.code !== undefined) throw error;
        if (error instanceof ApiError && error.status === 412) {
          isKept = true;
          throw new Error(
            `It was changed by somebody else meanwhile, and your change was not made; it is in "${file}"`,
          );
        }
        io.err(`Error: ${(error as Error).message}\nPress enter to open the editor again or ctrl+c to abort change\n`);
      }
      if (!await ending.before(enter(interruption))) throw new Error("Nothing was changed");
    }
  } finally {
    if (!isKept) await rm(directory, { recursive: true, force: true });
    if (ending.code !== undefined) process.exit(ending.code);
  }
}
