import { LidoError, messageOf } from "../../api/errors.ts";
import { cleanPath } from "../archives/member.ts";
import { readTar } from "../archives/tar_reader.ts";
import { Sections } from "./sections.ts";

/** Passes a backup on as it is made, and checks it as an import would: a backup that could not be imported must fail while it is made, not when it
 * is needed. @param snapshots Names, the oldest first. @throws {LidoError} bad_request with what cannot be in a backup. */
export async function* checkedBackup(
  archive: AsyncIterable<Uint8Array>,
  snapshots: readonly string[],
): AsyncGenerator<Uint8Array> {
  let passed: Uint8Array[] = [];
  const tapped = async function* () {
    for await (const chunk of archive) {
      passed.push(chunk);
      yield chunk;
    }
  };
  const entries = readTar(tapped());
  const flush = () => {
    const chunks = passed;
    passed = [];
    return chunks;
  };
  try {
    const first = await entries.next();
    if (first.done || cleanPath(first.value.name) !== "backup/index.yaml") throw new Error("it has no index");
    for await (const section of new Sections(entries, snapshots).all()) {
      for await (const _ of section.check()) yield* flush();
    }
    yield* flush();
  } catch (error) {
    const why = messageOf(error).replace(/^Invalid backup: /, "");
    if (!(error instanceof LidoError)) throw new Error(`Cannot make the backup: ${why}`, { cause: error });
    throw new LidoError("bad_request", `Cannot make the backup: ${why}`);
  }
}
