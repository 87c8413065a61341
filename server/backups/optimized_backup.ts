import { Readable } from "node:stream";
import { stringify } from "yaml";
import { z } from "zod";
import { LidoError, messageOf } from "../../api/errors.ts";
import { refusal } from "../../api/refusal.ts";
import type {
  CopyOptions,
  Driver,
  Send,
  SentStream,
  StreamBackup,
  Volume,
  WatchOptions,
} from "../../drivers/storage/driver.ts";
import { parseHostileYaml } from "../archives/hostile_yaml.ts";
import { cleanPath } from "../archives/member.ts";
import type { TarEntry } from "../archives/tar_reader.ts";
import { endOfArchive, tarFile, tarPadding } from "../archives/tar_writer.ts";

/** Backups in a driver's own format, laid out as LXD 5.0's: after the index a header that names the subvolumes, then a stream for each snapshot, each
 * as the difference from the one before, and last the volume's; after each of them the streams of the subvolumes within it. A tar archive has the
 * length of a file before its content, so each stream is made twice: once to be counted, which costs time but no space, and once to be written.
 * Only snapshots are sent, which do not change, so both streams are the same. */

const headerMaxBytes = 1 << 20;
const headBytes = 4096;
/** Each nested subvolume costs a process, and a transaction of the filesystem. */
const nestedMax = 10_000;

const headerSchema = z.object({
  subvolumes: z.array(z.object({
    path: z.string(),
    snapshot: z.string().nullish(),
    readonly: z.boolean().nullish(),
  })).nullish(),
});

interface Part {
  readonly name: string;
  /** Name in the header; "" for the volume itself. */
  readonly snapshot: string;
  /** Path in the volume, with a leading slash. */
  readonly path: string;
  readonly readonly: boolean;
  readonly send: () => SentStream;
}

/** A subvolume within a volume or snapshot, as the header lists it. */
interface Nested {
  /** Without a leading slash. */
  readonly path: string;
  readonly readonly: boolean;
}

/** The facet for optimized backups, if the driver has it and makes snapshots instantly. */
export function optimizedBy(driver: Driver): (Send & { backup: StreamBackup }) | undefined {
  const { send, snapshot } = driver.facets;
  return send?.backup && snapshot?.cost === "instant" ? { ...send, backup: send.backup } : undefined;
}

/** @param moment A snapshot of the volume that exists while this runs. @param snapshots Names, the oldest first.
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
  await using nested = await send.backup.nested(states);
  const parts = states.flatMap((state, at): Part[] => {
    const snapshot = snapshots[at], parent = states[at - 1];
    const options = { ...(parent ? { parent } : {}), signal };
    const part = (path: string, readonly: boolean, send: () => SentStream): Part => ({
      name: fileName(snapshot, path),
      snapshot: snapshot ?? "",
      path: `/${path}`,
      readonly,
      send,
    });
    return [
      part("", snapshot !== undefined, () => send.send(state, options)),
      ...nested.states[at]!.map(({ path, readonly }) => part(path, readonly, () => nested.send(at, path, { signal }))),
    ];
  });
  const measured = [];
  for (const part of parts) measured.push({ ...part, ...await measure(send, part) });
  const header = stringify({
    subvolumes: measured.map(({ path, snapshot, readonly, uuid }) => ({ path, snapshot, readonly, uuid })),
  });
  yield* textFile("backup/index.yaml", index);
  yield* textFile("backup/optimized_header.yaml", header);
  const total = measured.reduce((sum, { sizeBytes }) => sum + BigInt(sizeBytes), 0n);
  let sent = 0n;
  for (const part of measured) {
    yield tarFile(part.name, part.sizeBytes, 0o600);
    let bytes = 0;
    const { stream, done } = part.send();
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
): Promise<{ sizeBytes: number; uuid: string }> {
  const { stream, done } = part.send();
  let sizeBytes = 0, head: Uint8Array = new Uint8Array();
  for await (const chunk of stream) {
    if (head.length < headBytes) head = Buffer.concat([head, (chunk as Uint8Array).subarray(0, headBytes)]);
    sizeBytes += (chunk as Uint8Array).length;
  }
  await done;
  return { sizeBytes, uuid: send.backup.uuidOf(head) ?? "" };
}

/** LXD's name for a member: "/" within the path becomes "-", and "-" becomes "--". */
function fileName(snapshot: string | undefined, path: string): string {
  const suffix = path === "" ? "" : `_${path.replaceAll("-", "--").replaceAll("/", "-")}`;
  return snapshot === undefined ? `backup/volume${suffix}.bin` : `backup/volume-snapshots/${snapshot}${suffix}.bin`;
}

function* textFile(name: string, text: string): Generator<Uint8Array> {
  const content = new TextEncoder().encode(text);
  yield tarFile(name, content.length, 0o644);
  yield content;
  yield tarPadding(content.length);
}

/** Creates `volume` and its snapshots from the entries after an index.
 * @param snapshots Names, in the order of the index. */
export async function readOptimized(
  driver: Driver,
  volume: Volume,
  snapshots: readonly string[],
  entries: AsyncGenerator<TarEntry>,
  options: CopyOptions,
): Promise<void> {
  const { send, backup } = receiverOf(driver);
  const { sizeBytes, ...unlimited } = options;
  let bytes = 0n;
  let next = await entries.next();
  let nested = new Map<string, Nested[]>();
  if (!next.done && cleanPath(next.value.name) === "backup/optimized_header.yaml") {
    nested = readHeader(new TextDecoder().decode(await next.value.read(headerMaxBytes)), snapshots);
    next = await entries.next();
  }
  /** Passes the next entry's stream, checked, to `receive`. */
  const take = async (name: string, inspect: Inspect, receive: (stream: Readable) => Promise<void>) => {
    if (next.done || cleanPath(next.value.name) !== name || next.value.type !== "file" || next.value.sparse) {
      throw invalid(
        `"${name}" is missing, or not in its place (there is "${next.done ? "the end" : next.value.name}")`,
      );
    }
    const entry = next.value;
    let failure: unknown;
    const checked = async function* () {
      try {
        for await (const chunk of inspect(entry.content())) {
          options.progress?.(bytes += BigInt(chunk.length));
          yield chunk;
        }
      } catch (error) {
        failure = error; // the tool ends because of it, but its own error does not say so
        throw error;
      }
    };
    const stream = Readable.from(checked(), { objectMode: false });
    try {
      await receive(stream);
    } catch (error) {
      stream.destroy();
      throw failure === undefined ? error : failure instanceof LidoError ? failure : invalid(messageOf(failure));
    }
    next = await entries.next();
  };
  const { signal } = options;
  const inspect = backup.inspect();
  let before: { readonly state: Volume; readonly inspects: ReadonlyMap<string, Inspect> } | undefined;
  for (const snapshot of [...snapshots, undefined]) {
    const state = snapshot === undefined ? volume : { ...volume, snapshot };
    const parent = before ? { parent: before.state } : {};
    const limit = snapshot === undefined && sizeBytes !== undefined ? { sizeBytes } : {};
    await take(
      fileName(snapshot, ""),
      inspect,
      (stream) => send.receive(state, stream, { ...unlimited, ...limit, ...parent }),
    );
    const within = nested.get(snapshot ?? "") ?? [];
    const inspects = new Map<string, Inspect>();
    for (const { path } of within) {
      // A subvolume that was not in the state before has no parent.
      const known = before?.inspects.get(path);
      inspects.set(path, known ?? backup.inspect());
      const place = { path, parent: known && before?.state };
      await take(
        fileName(snapshot, path),
        inspects.get(path)!,
        (stream) => backup.receiveNested(state, place, stream, signal ? { signal } : {}),
      );
    }
    if (within.length > 0) {
      await backup.completeNested(state, within.filter(({ readonly }) => readonly).map(({ path }) => path));
    }
    before = { state, inspects };
  }
  if (!next.done) throw invalid(`"${next.value.name}" is not in the index`);
}

type Inspect = ReturnType<StreamBackup["inspect"]>;

function receiverOf(driver: Driver): { send: Send; backup: StreamBackup } {
  const send = optimizedBy(driver)!;
  return { send, backup: send.backup };
}

/** @returns The subvolumes within each state, by its snapshot's name ("" for the volume), in the order of their streams. */
function readHeader(text: string, snapshots: readonly string[]): Map<string, Nested[]> {
  let value: unknown;
  try {
    value = parseHostileYaml(text);
  } catch (error) {
    throw invalid(`optimized_header.yaml: ${messageOf(error).split("\n")[0]}`);
  }
  const result = headerSchema.safeParse(value);
  if (!result.success) {
    const { field, reason } = refusal(result.error, value);
    throw invalid(`optimized_header.yaml: ${field || "content"}: ${reason}`);
  }
  const found = new Map<string, Nested[]>(), seen = new Set<string>();
  const within = (result.data.subvolumes ?? []).filter(({ path }) => path !== "/");
  if (within.length > nestedMax) throw invalid(`it has more than ${nestedMax} subvolumes within the volume`);
  for (const { path, snapshot, readonly } of within) {
    const state = snapshot ?? "";
    const parts = path.split("/").slice(1);
    const isPath = path.startsWith("/") && parts.every((part) => part !== "" && part !== "." && part !== "..");
    if (!isPath || path.includes("\0") || (state !== "" && !snapshots.includes(state))) {
      throw invalid(`optimized_header.yaml: subvolume ${JSON.stringify(path)} of ${JSON.stringify(state)} is none`);
    }
    const own = parts.join("/");
    const key = JSON.stringify([state, own]);
    if (seen.has(key)) throw invalid(`optimized_header.yaml: "${path}" is there twice`);
    seen.add(key);
    const nested = { path: own, readonly: readonly ?? false };
    if (!found.get(state)?.push(nested)) found.set(state, [nested]);
  }
  return found;
}

function invalid(why: string): LidoError {
  return new LidoError("bad_request", `Invalid backup: ${why}`);
}
