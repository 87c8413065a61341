import { Readable } from "node:stream";
import { LidoError } from "../../api/errors.ts";
import { bodyFailure } from "./errors.ts";

const stallMaxMs = 300_000;

/** Wraps an upload: it fails when no data comes for too long, since an upload keeps its volume from being restored or deleted.
 * @param source Destroyed with the returned stream. @param maxMs Until the next chunk.
 * @throws {LidoError} bad_request, from the returned stream; also when the client disconnects. */
export function limitUpload(source: Readable, maxMs: number = stallMaxMs): Readable {
  return limited(source, "upload", maxMs);
}

/** Wraps a download: it fails when the client reads nothing for too long. Otherwise as `limitUpload`. */
export function limitDownload(source: Readable, maxMs: number = stallMaxMs): Readable {
  return limited(source, "download", maxMs);
}

/** Counts only the time spent waiting for the client, not the daemon's own: a disk may be slow. */
function limited(source: Readable, direction: "upload" | "download", maxMs: number): Readable {
  // The source may fail before the first read, which then gets the error.
  source.on("error", () => {});
  let timer: NodeJS.Timeout | undefined;
  const turn = (isClients: boolean) => {
    clearTimeout(timer);
    if (!isClients) return;
    timer = setTimeout(() => {
      // The source first, and without an error: `moving` waits for it, and it may have no listener yet.
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
  // The stream may never be read (a client that disconnected before its answer began): then the timeout must not be an uncaught error.
  moving.on("error", () => {});
  // The time until the first read counts for a download: the client must read the first byte, too.
  turn(direction === "download");
  return moving.once("close", () => {
    turn(false);
    source.destroy();
  });
}
