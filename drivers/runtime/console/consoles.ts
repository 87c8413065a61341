import { rmSync } from "node:fs";
import { join } from "node:path";
import { LidoError, messageOf, wrongState } from "../../../api/errors.ts";
import { connectUnix, listenUnix, receivePacket, sendPacket } from "../../host/sockets/fd_passing.ts";
import { hostId } from "../../host/mounts/idmap.ts";
import { check, libc, SystemCallError } from "../../host/ffi/libc.ts";
import type { Poller, Watch } from "../../host/poll/poll.ts";
import { again, closeFd, duplicateFd, makePipe, openPty, openPtyPeer } from "../../host/process/process.ts";
import { serveAgain } from "../../host/process/self.ts";
import { childEnd } from "../process/child.ts";
import { replaceConsoleLog } from "./log.ts";
import {
  type ConsoleAnswer,
  consoleNotFound,
  type ConsoleRequest,
  contentMark,
  packetBytesMax,
  socketName,
} from "./messages.ts";
import type { IdMap } from "../../host/id_map.ts";
import type { ConsoleTerminal, RuntimeLog } from "../runtime.ts";

/** The size of a Linux console, and of LXC's. */
const defaultSize = { width: 80, height: 24 };
const answerTimeoutMs = 10_000, endTimeoutMs = 2_000;
/** Pause before another attempt to start a console server. */
const retryMs = 5_000;
/** As in devpts: the owner and the group "tty" may write. */
const ttyGid = 5, ttyMode = 0o620;
const pipeBytes = 256 * 1024;

export interface NewConsole {
  /** Host path of the container's end, to be mounted at its /dev/console. */
  readonly path: string;
  /** The same end, open, for the init's stdio. The caller closes it. */
  readonly peer: number;
}

interface Answered {
  readonly answer: ConsoleAnswer;
  readonly content: Uint8Array;
  readonly fd?: number;
}

/** A client that is attached to a console. */
interface Follower {
  /** Write end of the pipe. */
  readonly fd: number;
  lost?: Error;
}

/** The terminals that are containers' /dev/console. They are pseudo-terminals of the host's devpts. The console server keeps and reads their
 * masters (`server.ts` says why); this daemon keeps them, too. */
export class Consoles {
  readonly #directory: string;
  readonly #poller: Poller;
  readonly #log: RuntimeLog;
  readonly #masters = new Map<string, number>();
  /** By console. If the server is killed, the next one gets their pipes. */
  readonly #followers = new Map<string, Set<Follower>>();
  #server: Connection | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  /** @param directory Absolute, accessible to root only: it holds the server's socket. */
  constructor(options: { directory: string; poller: Poller; log: RuntimeLog }) {
    this.#directory = options.directory;
    this.#poller = options.poller;
    this.#log = options.log;
  }

  /** Adopts the consoles of an earlier daemon. @returns Their names. */
  async adopt(): Promise<string[]> {
    if (!this.#connect()) return [];
    const { answer } = await this.#ask({ do: "list" });
    const names = answer.names ?? [];
    for (const name of names) {
      const { fd } = await this.#ask({ do: "share", name });
      if (fd !== undefined) this.#masters.set(name, fd);
    }
    return [...names];
  }

  /** Makes a console for a container that is about to start. @param idmap The container's; absent for a privileged one. */
  async open(name: string, idmap: IdMap | undefined): Promise<NewConsole> {
    const { master, path } = openPty(defaultSize);
    let peer: number | undefined;
    try {
      peer = openPtyPeer(master);
      const uid = idmap ? hostId(idmap.uid, 0) ?? 0 : 0;
      const gid = idmap ? hostId(idmap.gid, ttyGid) ?? hostId(idmap.gid, 0) ?? 0 : ttyGid;
      check(`chown ${path}`, libc.fchown(peer, uid, gid));
      check(`chmod ${path}`, libc.fchmod(peer, ttyMode));
      this.#forget(name);
      this.#masters.set(name, master);
      await this.#ask({ do: "keep", name }, master);
      return { path, peer };
    } catch (error) {
      if (peer !== undefined) closeFd(peer);
      if (this.#masters.has(name)) this.#forget(name);
      else closeFd(master);
      throw error;
    }
  }

  has(name: string): boolean {
    return this.#masters.has(name);
  }

  /** @returns The console's latest output, at most what the ring holds. @throws {LidoError} bad_request when the container has ended meanwhile. */
  async content(name: string): Promise<Uint8Array> {
    return (await this.#askOf(name, "show")).content;
  }

  /** @throws {LidoError} As `content`. */
  async clear(name: string): Promise<void> {
    await this.#askOf(name, "clear");
  }

  /** The server may get the request after the one that ends the console, and its answer may arrive when the instance is starting again. */
  #askOf(name: string, what: "show" | "clear"): Promise<Answered> {
    return this.#ask({ do: what, name }).catch((error) => {
      const isKnown = this.has(name) && messageOf(error) !== consoleNotFound(name);
      throw isKnown ? error : wrongState("The instance is not running", name);
    });
  }

  async attach(name: string): Promise<ConsoleTerminal> {
    const master = this.#masters.get(name);
    if (master === undefined) throw new LidoError("not_found", `The instance "${name}" has no console`);
    const pipe = makePipe({ sizeBytes: pipeBytes });
    const follower: Follower = { fd: pipe.write };
    try {
      // Add it to the followers only afterwards: a server started for this request must not get it twice.
      await this.#ask({ do: "follow", name }, pipe.write);
      if (this.#masters.get(name) !== master) throw wrongState("The instance is not running", name);
      const terminal = { master: duplicateFd(master), output: pipe.read };
      const followers = this.#followers.get(name) ?? new Set();
      this.#followers.set(name, followers.add(follower));
      return {
        ...terminal,
        lost: () => follower.lost,
        release: () => {
          if (followers.delete(follower)) closeFd(follower.fd);
        },
      };
    } catch (error) {
      closeFd(pipe.read);
      closeFd(pipe.write);
      throw error;
    }
  }

  /** Drops the console of a container that has ended. A failure to write the log (disk full) is logged and does not keep the console.
   * @param file Where its latest output is written, replacing the file that is there; 0600. */
  async end(name: string, file: string | undefined): Promise<void> {
    if (!this.has(name)) return;
    try {
      const { content } = await this.#ask({ do: "show", name });
      if (file !== undefined) replaceConsoleLog(file, content);
    } catch (error) {
      this.#log.warn(
        { container: name, error: messageOf(error) },
        "could not write down what the console printed last",
      );
    }
    this.#forget(name);
    await this.#ask({ do: "drop", name }).catch(() => {}); // a killed server has already lost it
  }

  /** Leaves the server running if there are consoles of running containers; otherwise ends it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#queue;
    const isIdle = this.#masters.size === 0;
    for (const name of [...this.#masters.keys()]) this.#forget(name);
    const server = this.#server;
    this.#server = undefined;
    if (isIdle) await server?.ask({ do: "end" }).catch(() => {}); // the end of the connection is its answer
    await server?.close(isIdle);
    if (isIdle) rmSync(this.#socket, { force: true });
  }

  #forget(name: string): void {
    this.#closeFollowers(name);
    const master = this.#masters.get(name);
    if (master !== undefined) closeFd(master);
    this.#masters.delete(name);
  }

  #closeFollowers(name: string, lost?: Error): void {
    const followers = this.#followers.get(name) ?? new Set();
    this.#followers.delete(name);
    for (const follower of followers) {
      if (lost) follower.lost = lost;
      closeFd(follower.fd);
    }
    followers.clear();
  }

  /** Starts a new server: the containers' output must be read. If that fails, attached clients get the error. */
  async #takeOver(): Promise<void> {
    if (this.#isClosed || this.#masters.size === 0) return;
    try {
      await this.#ask({ do: "list" });
    } catch (error) {
      const reason = messageOf(error);
      this.#log.warn({ containers: this.#masters.size, error: reason }, "the consoles are not read");
      for (const name of [...this.#followers.keys()]) {
        this.#closeFollowers(name, new LidoError("internal", `Lost the console of "${name}": ${reason}`));
      }
      setTimeout(() => this.#server === undefined && void this.#takeOver(), retryMs).unref();
    }
  }

  /** Requests are sent one at a time. A missing server is started; if it dies meanwhile, another one gets the masters and the request. */
  #ask(request: ConsoleRequest, fd?: number): Promise<Answered> {
    const asked = this.#queue.then(async () => {
      const server = this.#server ?? await this.#start();
      try {
        return await server.ask(request, fd);
      } catch (error) {
        if (!(error instanceof ServerGone)) throw error;
        return await (await this.#start()).ask(request, fd);
      }
    });
    this.#queue = asked.catch(() => {});
    return asked;
  }

  #connect(): boolean {
    try {
      this.#server = this.#use(connectUnix(this.#socket), undefined);
      return true;
    } catch (error) {
      // ENOENT, ECONNREFUSED; EAGAIN when the server is stopped and does not accept.
      if (error instanceof SystemCallError) return false;
      throw error;
    }
  }

  async #start(): Promise<Connection> {
    try {
      return await this.#startAnother();
    } catch (error) {
      throw new LidoError("internal", `Cannot start the console server: ${messageOf(error)}`);
    }
  }

  async #startAnother(): Promise<Connection> {
    rmSync(this.#socket, { force: true });
    const listening = listenUnix(this.#socket, { packets: true });
    let server: Connection;
    try {
      // The connection waits in the socket's queue until the server accepts it.
      const connection = connectUnix(this.#socket);
      try {
        const words = ["daemon", "--consoles", this.#directory];
        const pid = serveAgain(words, "server_main.ts", import.meta.url, listening);
        server = this.#use(connection, pid);
      } catch (error) {
        closeFd(connection);
        throw error;
      }
    } finally {
      closeFd(listening);
    }
    try {
      for (const [name, master] of this.#masters) {
        for (const { fd } of this.#followers.get(name) ?? []) {
          await server.ask({ do: "follow", name, isTakeover: true }, fd);
        }
        await server.ask({ do: "keep", name, isTakeover: true }, master);
      }
    } catch (error) {
      await server.close(true);
      throw error;
    }
    // Only now: otherwise servers that die at start would be replaced without end.
    this.#server = server;
    return server;
  }

  #use(connection: number, pid: number | undefined): Connection {
    const server: Connection = new Connection(this.#poller, connection, pid, () => {
      if (this.#server !== server) return;
      this.#server = undefined;
      this.#log.warn({ containers: this.#masters.size }, "the console server is gone: another one takes over");
      void this.#takeOver();
    });
    return server;
  }

  get #socket(): string {
    return join(this.#directory, socketName);
  }
}

/** The console server has ended. */
class ServerGone extends Error {
  override name = "ServerGone";
}

/** A connection to the console server. */
class Connection {
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #onGone: () => void;
  /** Resolves when the process is reaped; at once for a server that an earlier daemon started. */
  readonly #ended: Promise<unknown>;
  readonly #pid: number | undefined;
  #waiting: { resolve(answered: Answered): void; reject(error: unknown): void } | undefined;
  readonly #buffer = new Uint8Array(packetBytesMax);
  #content: Uint8Array[] = [];
  #isGone = false;

  constructor(poller: Poller, fd: number, pid: number | undefined, onGone: () => void) {
    this.#fd = fd;
    this.#onGone = onGone;
    this.#pid = pid;
    this.#ended = pid === undefined ? Promise.resolve() : childEnd(poller, pid);
    this.#watch = poller.watch(fd);
    this.#arm();
  }

  /** @throws {ServerGone} If the server ends before it answers. @throws {Error} With the server's reason. */
  ask(request: ConsoleRequest, fd?: number): Promise<Answered> {
    return new Promise((resolve, reject) => {
      if (this.#isGone) return reject(new ServerGone("the console server is gone"));
      const late = setTimeout(() => this.#gone("does not answer"), answerTimeoutMs);
      this.#waiting = {
        resolve: (answered) => {
          clearTimeout(late);
          resolve(answered);
        },
        reject: (error) => {
          clearTimeout(late);
          reject(error);
        },
      };
      try {
        sendPacket(this.#fd, new TextEncoder().encode(JSON.stringify(request)), fd);
      } catch {
        this.#gone("takes no request");
      }
    });
  }

  /** @param isLast Whether the server keeps no console and ends now: waits for its end, and kills a server that is stopped. */
  async close(isLast: boolean): Promise<void> {
    if (!this.#isGone) {
      this.#isGone = true;
      this.#watch.close();
      closeFd(this.#fd);
    }
    if (!isLast || this.#pid === undefined) return;
    const pid = this.#pid; // our child, not reaped yet
    const late = setTimeout(() => process.kill(pid, "SIGKILL"), endTimeoutMs);
    await this.#ended;
    clearTimeout(late);
  }

  #arm(): void {
    this.#watch.arm("in", () => this.#receive());
  }

  #receive(): void {
    while (!this.#isGone) {
      const packet = receivePacket(this.#fd, this.#buffer);
      if (packet === again) return this.#arm();
      const { bytes, fd } = packet;
      if (bytes.length === 0) return this.#gone("has ended");
      if (bytes[0] === contentMark) {
        this.#content.push(bytes.slice(1));
        continue;
      }
      const waiting = this.#waiting;
      this.#waiting = undefined;
      const content = Buffer.concat(this.#content.splice(0));
      const answer: ConsoleAnswer = JSON.parse(new TextDecoder().decode(bytes));
      if (answer.error !== undefined) waiting?.reject(new Error(answer.error));
      else waiting?.resolve({ answer, content, ...(fd === undefined ? {} : { fd }) });
    }
  }

  #gone(what: string): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#watch.close();
    closeFd(this.#fd);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(new ServerGone(`the console server ${what}`));
    this.#onGone();
  }
}
