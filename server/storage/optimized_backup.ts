import { Readable } from "node:stream";
import { parse, stringify } from "yaml";
import { z } from "zod";
import { LidoError, messageOf } from "../../api/errors.ts";
import { refusal } from "../../api/refusal.ts";
import type { CopyOptions, Driver, Send, StreamBackup, Volume, WatchOptions } from "../../drivers/storage/driver.ts";
import { cleanPath } from "../archives/member.ts";
import type { TarEntry } from "../archives/tar_reader.ts";
import { endOfArchive, tarFile, tarPadding } from "../archives/tar_writer.ts";

/** Backups in a driver's own format, laid out as LXD 5.0's: behind the index a header that names the subvolumes, then a stream for each snapshot, each
 * on top of the one before, and at last the volume's. A tar archive says how long a file is before it begins, so each stream is made twice: once
 * to be counted, which costs time and no space, and once to be written. What is sent cannot change, so both are the same. */

const headerMaxBytes = 1 << 20;
const headBytes = 4096;

const headerSchema = z.object({
  subvolumes: z.array(z.object({ path: z.string(), snapshot: z.string().nullish() })).nullish(),
});

interface Part {
  readonly name: string;
  /** For the header; "" for the volume itself. */
  readonly snapshot: string;
  readonly volume: Volume;
  readonly parent: Volume | undefined;
}

/** The facet that makes such backups, if the driver has it. */
export function optimizedBy(driver: Driver): (Send & { backup: StreamBackup }) | undefined {
  const { send, snapshot } = driver.facets;
  return send?.backup && snapshot?.cost === "instant" ? { ...send, backup: send.backup } : undefined;
}

/** @param moment A snapshot of the volume, which is there as long as this runs. @param snapshots Names, the oldest first.
 * @returns The archive. */
export async function* writeOptimized(
  driver: Driver,
  volume: Volume,
  moment: Volume,
  snapshots: readonly string[],
  index: string,
  { signal, progress }: Required<WatchOptions>,
): AsyncGenerator<Uint8Array> {
  const send = optimizedBy(driver)!;
  const states = [...snapshots.map((snapshot) => ({ ...volume, snapshot })), moment];
  const parts = states.map((state, at): Part => ({
    name: at < snapshots.length ? `backup/volume-snapshots/${snapshots[at]}.bin` : "backup/volume.bin",
    snapshot: snapshots[at] ?? "",
    volume: state,
    parent: states[at - 1],
  }));
  for (const { volume } of parts) {
    const obstacle = send.backup.obstacle(volume);
    if (obstacle) throw new LidoError("bad_request", `Cannot make an optimized backup: ${obstacle}`);
  }
  const measured = [];
  for (const part of parts) measured.push({ ...part, ...await measure(send, part, signal) });
  const header = stringify({
    subvolumes: measured.map(({ snapshot, uuid }) => ({ path: "/", snapshot, readonly: snapshot !== "", uuid })),
  });
  yield* textFile("backup/index.yaml", index);
  yield* textFile("backup/optimized_header.yaml", header);
  const total = measured.reduce((sum, { sizeBytes }) => sum + BigInt(sizeBytes), 0n);
  let sent = 0n;
  for (const part of measured) {
    yield tarFile(part.name, part.sizeBytes, 0o600);
    let bytes = 0;
    const { stream, done } = send.send(part.volume, optionsOf(part, signal));
    for await (const chunk of stream) {
      bytes += (chunk as Uint8Array).length;
      if (bytes > part.sizeBytes) break;
      progress(sent += BigInt((chunk as Uint8Array).length), total);
      yield chunk as Uint8Array;
    }
    await done;
    if (bytes !== part.sizeBytes) throw new Error(`the stream of "${part.name}" changed while it was written`);
    yield tarPadding(part.sizeBytes);
  }
  yield endOfArchive;
}

async function measure(
  send: Send & { backup: StreamBackup },
  part: Part,
  signal: AbortSignal,
): Promise<{ sizeBytes: number; uuid: string }> {
  const { stream, done } = send.send(part.volume, optionsOf(part, signal));
  let sizeBytes = 0, head: Uint8Array = new Uint8Array();
  for await (const chunk of stream) {
    if (head.length < headBytes) head = Buffer.concat([head, (chunk as Uint8Array).subarray(0, headBytes)]);
    sizeBytes += (chunk as Uint8Array).length;
  }
  await done;
  return { sizeBytes, uuid: send.backup.uuidOf(head) ?? "" };
}

function optionsOf({ parent }: Part, signal: AbortSignal): { parent?: Volume; signal: AbortSignal } {
  return parent ? { parent, signal } : { signal };
}

function* textFile(name: string, text: string): Generator<Uint8Array> {
  const content = new TextEncoder().encode(text);
  yield tarFile(name, content.length, 0o644);
  yield content;
  yield tarPadding(content.length);
}

/** Makes `volume` and its snapshots of the entries behind an index.
 * @param snapshots Names, in the order of the index. */
export async function readOptimized(
  driver: Driver,
  volume: Volume,
  snapshots: readonly string[],
  entries: AsyncGenerator<TarEntry>,
  options: CopyOptions,
): Promise<void> {
  const send = optimizedBy(driver)!;
  const inspect = send.backup.inspect();
  const { sizeBytes, ...unlimited } = options;
  let bytes = 0n;
  let next = await entries.next();
  if (!next.done && cleanPath(next.value.name) === "backup/optimized_header.yaml") {
    checkHeader(new TextDecoder().decode(await next.value.read(headerMaxBytes)));
    next = await entries.next();
  }
  const expected = [...snapshots.map((name) => `backup/volume-snapshots/${name}.bin`), "backup/volume.bin"];
  for (const [at, name] of expected.entries()) {
    if (next.done || cleanPath(next.value.name) !== name || next.value.type !== "file" || next.value.sparse) {
      throw invalid(
        `"${name}" is missing, or not in its place (there is "${next.done ? "the end" : next.value.name}")`,
      );
    }
    const snapshot = snapshots[at];
    const target = snapshot === undefined ? volume : { ...volume, snapshot };
    const entry = next.value;
    let failure: unknown;
    const checked = async function* () {
      try {
        for await (const chunk of inspect(entry.content())) {
          options.progress?.(bytes += BigInt(chunk.length));
          yield chunk;
        }
      } catch (error) {
        failure = error; // the tool, which is ended by it, knows nothing of it
        throw error;
      }
    };
    const parent = at > 0 ? { parent: { ...volume, snapshot: snapshots[at - 1]! } } : {};
    const limit = snapshot === undefined && sizeBytes !== undefined ? { sizeBytes } : {};
    const stream = Readable.from(checked(), { objectMode: false });
    try {
      await send.receive(target, stream, { ...unlimited, ...limit, ...parent });
    } catch (error) {
      stream.destroy();
      throw failure === undefined ? error : failure instanceof LidoError ? failure : invalid(messageOf(failure));
    }
    next = await entries.next();
  }
  if (!next.done) throw invalid(`"${next.value.name}" is not in the index`);
}

function checkHeader(text: string): void {
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 10 });
  } catch (error) {
    throw invalid(`optimized_header.yaml: ${messageOf(error).split("\n")[0]}`);
  }
  const result = headerSchema.safeParse(value);
  if (!result.success) {
    const { field, reason } = refusal(result.error, value);
    throw invalid(`optimized_header.yaml: ${field || "content"}: ${reason}`);
  }
  const nested = result.data.subvolumes?.find(({ path }) => path !== "/");
  if (!nested) return;
  throw new LidoError(
    "bad_request",
    `Cannot import the backup: it has subvolume "${nested.path}" within the volume; export it without --optimized-storage`,
  );
}

function invalid(why: string): LidoError {
  return new LidoError("bad_request", `Invalid backup: ${why}`);
}
