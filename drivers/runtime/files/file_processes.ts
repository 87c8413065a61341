import { LidoError } from "../../../api/errors.ts";
import { receivePacket, sendPacket, setSendBuffer, socketPair } from "../../host/sockets/fd_passing.ts";
import type { Poller, Watch } from "../../host/poll/poll.ts";
import { again, closeFd, openPidfd, sendSignal, waitPid } from "../../host/process/process.ts";
import { serveAgain } from "../../host/process/self.ts";
import { contentMark, type FileAnswer, type FileTask, packetBytesMax, readyMark } from "./file_messages.ts";

/** Maximum of processes per tenant at a time, including killed ones that cannot end: the kernel keeps a process that waits for a FUSE filesystem
 * until that filesystem answers or is gone. */
const shareMax = 2;
const answerTimeoutMs = 10_000;
/** A process starts in 30 ms, or in seconds on a busy machine: that is not the filesystem's fault. */
const startTimeoutMs = 30_000;
/** How long a killed process may take to end before it counts as stuck. */
const endMs = 1_000;
/** How long an idle process is kept for the next request, often one of the same change: starting a process takes 30 ms. */
const idleMs = 5_000;
const SIGKILL = 9;

/** No answer came within the time limit. */
export class NotAnswered extends Error {
  override name = "NotAnswered";
  readonly code = "ETIMEDOUT";
}

/** The process ended before it answered. */
class Gone extends Error {
  override name = "Gone";
}

export interface Answered {
  readonly answer: FileAnswer;
  /** The caller closes it. */
  readonly fd?: number;
  /** Content of a file. */
  readonly content: Uint8Array;
}

export interface AskOptions {
  /** Sent along with the request; they stay the caller's. */
  readonly fds?: readonly number[];
  /** Measured from when the process is ready. */
  readonly timeoutMs?: number;
}

export interface Stuck {
  readonly tenant: string;
  readonly task: FileTask;
  /** The file process. */
  readonly pid: number;
}

interface Share {
  held: number;
  readonly waiting: (() => void)[];
}

/** The processes that touch filesystems which may never answer (`file_server.ts`). Each serves one request at a time. After its answer it serves any
 * tenant's next request; without an answer in time it is killed, which closes its descriptors. */
export class FileProcesses {
  readonly #poller: Poller;
  readonly #all = new Set<FileProcess>();
  readonly #shares = new Map<string, Share>();
  readonly #onStuck: (stuck: Stuck) => void;
  #idle: FileProcess | undefined;
  #idleTimer: ReturnType<typeof setTimeout> | undefined;

  /** @param onStuck Called for a process that was killed and does not end. */
  constructor(poller: Poller, onStuck: (stuck: Stuck) => void = () => {}) {
    this.#poller = poller;
    this.#onStuck = onStuck;
  }

  /** @param tenant Owner of the files: an instance's name.
   * @throws {NotAnswered} With a reason for the user. @throws {LidoError} The task's own. @throws {Error} With the name of an errno as `code`. */
  async ask(tenant: string, task: FileTask, options: AskOptions = {}): Promise<Answered> {
    const timeoutMs = options.timeoutMs ?? answerTimeoutMs;
    await this.#enter(tenant, timeoutMs);
    let used: FileProcess | undefined;
    try {
      const answered = await this.#askOne((one) => used = one, task, options.fds ?? [], timeoutMs);
      this.#keep(used!);
      this.#leave(tenant);
      return answered;
    } catch (error) {
      const isOver = used === undefined || !(error instanceof NotAnswered || error instanceof Gone);
      if (isOver) {
        if (used) this.#keep(used);
        this.#leave(tenant);
      } else this.#kill(used!, tenant, task);
      throw error;
    }
  }

  /** Kills all processes, busy ones too, and does not wait for those that cannot end. */
  close(): void {
    clearTimeout(this.#idleTimer);
    for (const one of this.#all) one.abandon();
    this.#all.clear();
    this.#idle = undefined;
  }

  #kill(one: FileProcess, tenant: string, task: FileTask): void {
    const late = setTimeout(() => this.#onStuck({ tenant, task, pid: one.pid }), endMs);
    one.onForget(() => clearTimeout(late));
    void one.kill().then(() => this.#leave(tenant));
  }

  async #askOne(
    uses: (one: FileProcess) => void,
    task: FileTask,
    fds: readonly number[],
    timeoutMs: number,
  ): Promise<Answered> {
    const idle = this.#takeIdle();
    if (idle) {
      uses(idle);
      try {
        return await idle.ask(task, fds, timeoutMs);
      } catch (error) {
        // The idle process may have been killed since its last answer: start another one.
        if (!(error instanceof Gone)) throw error;
        void idle.kill();
      }
    }
    const one = new FileProcess(this.#poller, () => this.#all.delete(one));
    this.#all.add(one);
    uses(one);
    return await one.ask(task, fds, timeoutMs);
  }

  #takeIdle(): FileProcess | undefined {
    clearTimeout(this.#idleTimer);
    const idle = this.#idle;
    this.#idle = undefined;
    return idle;
  }

  #keep(one: FileProcess): void {
    this.#takeIdle()?.end();
    this.#idle = one;
    this.#idleTimer = setTimeout(() => this.#takeIdle()?.end(), idleMs);
  }

  /** Waits until the tenant may use another process. */
  async #enter(tenant: string, timeoutMs: number): Promise<void> {
    const share = this.#shares.get(tenant) ?? { held: 0, waiting: [] };
    this.#shares.set(tenant, share);
    if (share.held < shareMax) {
      share.held++;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        share.waiting.splice(share.waiting.indexOf(enter), 1);
        reject(
          new NotAnswered(`${shareMax} requests before this one still wait for a filesystem that does not answer`),
        );
      }, timeoutMs);
      const enter = () => {
        clearTimeout(timer);
        resolve();
      };
      share.waiting.push(enter);
    });
  }

  #leave(tenant: string): void {
    const share = this.#shares.get(tenant)!;
    const next = share.waiting.shift();
    if (next) next();
    else if (--share.held === 0) this.#shares.delete(tenant);
  }
}

class FileProcess {
  readonly #socket: number;
  readonly #watch: Watch;
  readonly pid: number;
  readonly #pidfd: number;
  readonly #endWatch: Watch;
  readonly #ended = Promise.withResolvers<void>();
  readonly #buffer = new Uint8Array(packetBytesMax);
  #content: Uint8Array[] = [];
  #waiting: { resolve(answered: Answered): void; reject(error: unknown): void } | undefined;
  #isReady = false;
  #onReady: () => void = () => {};
  #isClosed = false;
  #hasEnded = false;
  #forgotten: () => void = () => {};

  /** @param onEnd Called when the process is reaped. */
  constructor(poller: Poller, onEnd: () => void) {
    const { near, far } = socketPair();
    try {
      setSendBuffer(near, packetBytesMax);
      this.pid = serveAgain(["daemon", "--files"], "file_server_main.ts", import.meta.url, far);
    } catch (error) {
      closeFd(near);
      throw error;
    } finally {
      closeFd(far);
    }
    this.#socket = near;
    this.#watch = poller.watch(near);
    this.#watch.arm("in", () => this.#receive());
    this.#pidfd = openPidfd(this.pid);
    this.#endWatch = poller.watch(this.#pidfd);
    this.#endWatch.arm("in", () => {
      this.#forget();
      waitPid(this.pid);
      this.#ended.resolve();
      onEnd();
    });
  }

  ask(task: FileTask, fds: readonly number[], timeoutMs: number): Promise<Answered> {
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout;
      const limit = (ms: number, what: string) =>
        timer = setTimeout(() => this.#waiting?.reject(new NotAnswered(`${what} within ${ms / 1000} s`)), ms);
      const begin = () => limit(timeoutMs, "it did not answer");
      if (this.#isReady) begin();
      else {
        limit(startTimeoutMs, "the process that asks it did not start");
        this.#onReady = () => {
          clearTimeout(timer);
          begin();
        };
      }
      const over = () => {
        clearTimeout(timer);
        this.#onReady = () => {};
        this.#waiting = undefined;
      };
      this.#waiting = {
        resolve: (answered) => {
          over();
          resolve(answered);
        },
        reject: (error) => {
          over();
          reject(error);
        },
      };
      try {
        if (this.#isClosed) throw new Gone("the process has ended");
        sendPacket(this.#socket, new TextEncoder().encode(JSON.stringify(task)), ...fds);
      } catch (error) {
        const isGone = ["EPIPE", "ECONNRESET"].includes((error as { code?: string }).code ?? "");
        this.#waiting.reject(isGone ? new Gone("the process has ended") : error);
      }
    });
  }

  /** Closes the connection, so that the process ends by itself. */
  end(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#watch.close();
    closeFd(this.#socket);
  }

  /** @returns Resolves when the process has ended, which may be never. */
  kill(): Promise<void> {
    this.end();
    if (!this.#hasEnded) sendSignal(this.#pidfd, SIGKILL);
    return this.#ended.promise;
  }

  /** Calls `work` when the process has ended, or is no longer watched. */
  onForget(work: () => void): void {
    if (this.#hasEnded) work();
    else this.#forgotten = work;
  }

  /** Kills the process and stops watching it: the process that adopts it reaps it. */
  abandon(): void {
    this.#waiting?.reject(new NotAnswered("the daemon ends"));
    void this.kill();
    this.#forget();
  }

  #forget(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#endWatch.close();
    closeFd(this.#pidfd);
    this.#forgotten();
  }

  #receive(): void {
    while (!this.#isClosed) {
      const packet = received(this.#socket, this.#buffer);
      if (packet === again) return this.#watch.arm("in", () => this.#receive());
      const { bytes, fd } = packet;
      if (bytes.length === 0) {
        this.end();
        this.#waiting?.reject(new Gone("the process ended without an answer"));
        return;
      }
      if (bytes[0] === readyMark) {
        this.#isReady = true;
        this.#onReady();
        continue;
      }
      if (bytes[0] === contentMark) {
        this.#content.push(bytes.slice(1));
        continue;
      }
      const content = Buffer.concat(this.#content.splice(0));
      const answer: FileAnswer = JSON.parse(new TextDecoder().decode(bytes));
      if (answer.error !== undefined) this.#waiting?.reject(failureOf(answer));
      else this.#waiting?.resolve({ answer, content, ...(fd === undefined ? {} : { fd }) });
    }
  }
}

/** A process that was killed before it read its request resets the connection: treated as the end of it. */
function received(socket: number, buffer: Uint8Array): ReturnType<typeof receivePacket> {
  try {
    return receivePacket(socket, buffer);
  } catch (error) {
    if ((error as { code?: string }).code === "ECONNRESET") return { bytes: new Uint8Array(), fds: [] };
    throw error;
  }
}

function failureOf({ error, code }: FileAnswer): Error {
  if (code === "bad_request") return new LidoError(code, error!);
  return Object.assign(new Error(error), { code });
}
