import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import { bodyFailure } from "./errors.ts";

const stallMaxMs = 300_000;

/** What a client sends; it fails when nothing comes for too long: an upload keeps its volume from being restored or deleted.
 * @param source Is destroyed with what is returned. @param maxMs Until the next chunk.
 * @throws {LidoError} bad_request, out of what is returned; also when the client goes away. */
export function limitUpload(source: Readable, maxMs: number = stallMaxMs): Readable {
  return limited(source, "upload", maxMs);
}

/** What a client takes; it fails when nothing is taken for too long. As `limitUpload` else. */
export function limitDownload(source: Readable, maxMs: number = stallMaxMs): Readable {
  return limited(source, "download", maxMs);
}

/** Counts the time in which it is the client's turn, and not what the daemon itself takes: a disk may be slow. */
function limited(source: Readable, direction: "upload" | "download", maxMs: number): Readable {
  // It may fail before the first byte is asked for: whoever asks then is told.
  source.on("error", () => {});
  let timer: NodeJS.Timeout | undefined;
  const turn = (isClients: boolean) => {
    clearTimeout(timer);
    if (!isClients) return;
    timer = setTimeout(() => {
      // First, and without a reason: `moving` waits for it, and nobody may listen to it yet.
      source.destroy();
      moving.destroy(new LidoError("bad_request", `The ${direction} stood still for ${maxMs / 1000} seconds`));
    }, maxMs);
  };
  const moving = Readable.from(
    (async function* () {
      turn(direction === "upload");
      try {
        for await (const chunk of source) {
          turn(direction === "download");
          yield chunk;
          turn(direction === "upload");
        }
      } catch (error) {
        throw direction === "upload" ? bodyFailure(error) : error;
      }
      turn(false);
    })(),
    { objectMode: false },
  );
  // Nobody may ever read it (a client that left before its answer began): then the end of the time is nobody's failure, least of all the daemon's.
  moving.on("error", () => {});
  // Until it is asked for: the answer's first byte too has to be taken.
  turn(direction === "download");
  return moving.once("close", () => {
    turn(false);
    source.destroy();
  });
}
