/** The console server: the one process that holds and reads the masters of all the daemon's consoles. It is started with the first container.
 *
 * It exists because a daemon may be killed while containers run. When the last descriptor of a pty's master is closed, the other end hangs up:
 * shells on the console get SIGHUP, and from then on every open() of /dev/console fails with EIO, so that systemd gives up console-getty and every
 * unit with `StandardOutput=tty`. A master cannot be reopened. The output must also be read, or every writer to the console, init above all,
 * blocks after 68 KiB. LXC has a monitor process per container for this (15 MiB); here one process (27 MiB, 2 of them its own) serves all.
 * The server knows only names and descriptors, takes requests on one socket, and ends when it keeps no console and no daemon is connected. A later
 * daemon finds it by the socket. If the server is killed, the daemon, which also has the masters and the followers' pipes, starts another one;
 * consoles hang up only when both are killed.
 *
 * One thread that blocks in poll(2), no event loop. Whatever a container does (endless output, vhangup(2)) costs a bounded part of each turn. */
import { acceptUnix, receivePacket, sendPacket, setSendBuffer } from "../../host/sockets/fd_passing.ts";
import { again, closeFd, openPtyPeer, readFd, setNonBlocking, writeFd } from "../../host/process/process.ts";
import { waitForAny } from "../../host/poll/wait_any.ts";
import {
  type ConsoleAnswer,
  consoleNotFound,
  type ConsoleRequest,
  contentBytesMax,
  contentMark,
  listeningFd,
  packetBytesMax,
} from "./messages.ts";
import { ConsoleRing } from "./ring.ts";

/** Limit on a console's output: this many bytes per period. Endless output of a container costs a tenth of a CPU, not all of one. */
const turnBytes = 512 * 1024, periodMs = 10;
const readBytes = 4096;
/** Slightly more than the kernel buffers for a reader: all that can remain when the last writer has died. */
const lastBytesMax = 80 * 1024;
const requestBytesMax = 4096;
/** Ends the server if the daemon is killed before it connects. */
const firstClientTimeoutMs = 30_000;

/** Put into the ring of a console whose earlier output was lost with the last server. */
const lostNote = new TextEncoder().encode("[lido: the console server has ended; what was printed before is lost]\r\n");

interface Console {
  readonly name: string;
  readonly master: number;
  /** The other end, held open: otherwise the master would report a hang-up whenever no process in the container has the console open. */
  peer: number;
  readonly ring: ConsoleRing;
  /** Pipes that get the output. */
  readonly followers: Set<number>;
  /** Bytes read since `periodStart`. */
  readThisPeriod: number;
}

type Source =
  & { readonly fd: number; readonly interest: "in" | "end" }
  & ({ readonly kind: "listening" } | { readonly kind: "daemon" } | {
    readonly kind: "console" | "follower";
    readonly console: Console;
  });

/** Serves until no console is kept and no daemon is connected. */
export function serveConsoles(): void {
  new ConsoleServer(listeningFd).run();
}

class ConsoleServer {
  readonly #listening: number;
  readonly #consoles = new Map<string, Console>();
  /** Followers of consoles that are not kept yet. */
  readonly #early = new Map<string, Set<number>>();
  readonly #buffer = new Uint8Array(readBytes);
  readonly #request = new Uint8Array(requestBytesMax);
  #daemon: number | undefined;
  #isOver = false;
  #periodStart = performance.now();

  constructor(listening: number) {
    this.#listening = listening;
  }

  run(): void {
    let hadDaemon = false;
    while (!this.#isOver && (!hadDaemon || this.#daemon !== undefined || this.#consoles.size > 0)) {
      const ready = waitForAny(this.#sources(), this.#timeoutMs(hadDaemon));
      if (ready.length === 0 && !hadDaemon) return;
      for (const source of ready) this.#serve(source);
      hadDaemon ||= this.#daemon !== undefined;
    }
  }

  #sources(): Source[] {
    const nowMs = performance.now();
    if (nowMs - this.#periodStart >= periodMs) {
      this.#periodStart = nowMs;
      for (const console of this.#consoles.values()) console.readThisPeriod = 0;
    }
    const sources: Source[] = [{ kind: "listening", fd: this.#listening, interest: "in" }];
    if (this.#daemon !== undefined) sources.push({ kind: "daemon", fd: this.#daemon, interest: "in" });
    for (const console of this.#consoles.values()) {
      if (console.readThisPeriod < turnBytes) {
        sources.push({ kind: "console", console, fd: console.master, interest: "in" });
      }
      for (const fd of console.followers) sources.push({ kind: "follower", console, fd, interest: "end" });
    }
    return sources;
  }

  #timeoutMs(hadDaemon: boolean): number {
    if (!hadDaemon) return firstClientTimeoutMs;
    return [...this.#consoles.values()].some(({ readThisPeriod }) => readThisPeriod >= turnBytes) ? periodMs : -1;
  }

  #serve(source: Source): void {
    if (source.kind === "listening") return this.#accept();
    if (source.kind === "daemon") return this.#answer(source.fd);
    // A request in this same turn may have closed it.
    if (this.#consoles.get(source.console.name) !== source.console) return;
    if (source.kind === "console") this.#readOrDrop(source.console);
    else if (source.console.followers.has(source.fd)) unfollow(source.console, source.fd);
  }

  /** Only one daemon exists: a new connection means that the earlier daemon is dead. */
  #accept(): void {
    const connection = acceptUnix(this.#listening, { nonBlocking: true });
    if (this.#daemon !== undefined) closeFd(this.#daemon);
    this.#daemon = connection;
    setSendBuffer(connection, packetBytesMax);
  }

  #answer(daemon: number): void {
    if (daemon !== this.#daemon) return;
    let fd: number | undefined;
    try {
      const packet = receivePacket(daemon, this.#request);
      if (packet === again) return;
      fd = packet.fd;
      if (packet.bytes.length === 0) return this.#closeDaemon();
      const request: ConsoleRequest = JSON.parse(new TextDecoder().decode(packet.bytes));
      if (request.do === "end" && this.#consoles.size === 0) {
        this.#isOver = true;
        return;
      }
      const { shared, ...answer } = this.#obey(request, fd);
      if (request.do === "keep" || request.do === "follow") fd = undefined; // now in use: do not close it
      sendPacket(daemon, new TextEncoder().encode(JSON.stringify(answer)), shared);
    } catch (error) {
      this.#refuse(daemon, error);
    } finally {
      if (fd !== undefined) closeFd(fd);
    }
  }

  #refuse(daemon: number, error: unknown): void {
    try {
      const answer: ConsoleAnswer = { error: error instanceof Error ? error.message : String(error) };
      sendPacket(daemon, new TextEncoder().encode(JSON.stringify(answer)));
    } catch {
      this.#closeDaemon();
    }
  }

  #closeDaemon(): void {
    if (this.#daemon !== undefined) closeFd(this.#daemon);
    this.#daemon = undefined;
  }

  #obey(request: ConsoleRequest, fd: number | undefined): ConsoleAnswer & { shared?: number } {
    switch (request.do) {
      case "list":
        return { names: [...this.#consoles.keys()] };
      case "keep":
        this.#keep(request.name, needed(fd));
        if (request.isTakeover) this.#console(request.name).ring.push(lostNote);
        return {};
      case "share":
        return { shared: this.#console(request.name).master };
      case "show":
        this.#show(this.#console(request.name));
        return {};
      case "follow": {
        const pipe = needed(fd);
        setNonBlocking(pipe);
        this.#followersOf(request).add(pipe);
        return {};
      }
      case "clear":
        this.#console(request.name).ring.clear();
        return {};
      case "drop":
        this.#drop(this.#console(request.name));
        return {};
      case "end":
        throw new Error(`${this.#consoles.size} consoles are kept`);
    }
  }

  #followersOf({ name, isTakeover }: { readonly name: string; readonly isTakeover?: boolean }): Set<number> {
    if (!isTakeover) return this.#console(name).followers;
    const early = this.#early.get(name) ?? new Set();
    this.#early.set(name, early);
    return early;
  }

  #console(name: string): Console {
    const console = this.#consoles.get(name);
    if (!console) throw new Error(consoleNotFound(name));
    return console;
  }

  /** An existing console of the same name belongs to a container that has ended. */
  #keep(name: string, master: number): void {
    const before = this.#consoles.get(name);
    if (before) this.#drop(before);
    setNonBlocking(master);
    this.#consoles.set(name, {
      name,
      master,
      peer: openPtyPeer(master),
      ring: new ConsoleRing(),
      followers: this.#early.get(name) ?? new Set(),
      readThisPeriod: 0,
    });
    this.#early.delete(name);
  }

  #drop(console: Console): void {
    this.#consoles.delete(console.name);
    for (const pipe of console.followers) closeFd(pipe);
    closeFd(console.peer);
    closeFd(console.master);
  }

  /** Sends all output until now. */
  #show(console: Console): void {
    this.#read(console, lastBytesMax);
    const content = console.ring.content();
    for (let at = 0; at < content.length; at += contentBytesMax) {
      const part = content.subarray(at, at + contentBytesMax);
      const packet = new Uint8Array(part.length + 1);
      packet[0] = contentMark;
      packet.set(part, 1);
      sendPacket(this.#daemon!, packet);
    }
  }

  #readOrDrop(console: Console): void {
    try {
      this.#read(console, turnBytes - console.readThisPeriod);
    } catch {
      this.#drop(console); // its other end cannot be reopened (no descriptors left); the other consoles go on
    }
  }

  #read(console: Console, bytesMax: number): void {
    for (let left = bytesMax; left > 0;) {
      const count = readFd(console.master, this.#buffer);
      if (count === again) return;
      // vhangup(2), which every getty calls, hangs up our end too.
      if (count === 0) return reopen(console);
      left -= count;
      console.readThisPeriod += count;
      const chunk = this.#buffer.subarray(0, count);
      console.ring.push(chunk);
      for (const pipe of console.followers) if (!forward(pipe, chunk)) unfollow(console, pipe);
    }
  }
}

/** A slow follower loses the output that its pipe has no room for: a container must not wait for its followers. @returns Whether it still reads. */
function forward(pipe: number, chunk: Uint8Array): boolean {
  try {
    writeFd(pipe, chunk);
    return true;
  } catch {
    return false;
  }
}

function unfollow(console: Console, pipe: number): void {
  console.followers.delete(pipe);
  closeFd(pipe);
}

function reopen(console: Console): void {
  closeFd(console.peer);
  console.peer = openPtyPeer(console.master);
}

function needed(fd: number | undefined): number {
  if (fd === undefined) throw new Error("a descriptor is missing");
  return fd;
}
