import { readFileSync } from "node:fs";
import { release } from "node:os";
import { addressOf, check, libc, SystemCallError } from "../ffi/libc.ts";
import { closeFd, type ExitStatus, openPidfd, statusOf } from "./process.ts";

/** How a process ended that is not our child, such as the init of a container that an earlier daemon started: wait(2) works only for its parent.
 * An init that was rebooted or powered off by reboot(2) is reported as killed by SIGKILL once reaped; `exit_tracer.ts` knows better, where tracing is
 * allowed. From Linux 6.15 on the pidfd has the status; before, the process events connector reports it once.
 * @see PIDFD_GET_INFO in linux/pidfd.h; linux/cn_proc.h */

/** _IOWR(0xff, 11, struct pidfd_info), in its first version; the mask is the first member, the exit code the last. */
const PIDFD_GET_INFO = 0xc040ff0bn, PIDFD_INFO_EXIT = 8n;
const infoBytes = 64, infoExitOffset = 60;

const AF_NETLINK = 16, SOCK_DGRAM = 2, SOCK_NONBLOCK = 0x800, SOCK_CLOEXEC = 0x80000, NETLINK_CONNECTOR = 11;
const SOL_SOCKET = 1, SO_ATTACH_FILTER = 26;
const CN_IDX_PROC = 1, CN_VAL_PROC = 1, PROC_CN_MCAST_LISTEN = 1, PROC_CN_MCAST_IGNORE = 2;
const PROC_EVENT_EXIT = 0x80000000;
/** struct nlmsghdr, struct cn_msg, and then struct proc_event: what, cpu, time stamp; for an exit: pid, tgid, code. */
const headerBytes = 16, messageBytes = 20;
const eventOffset = headerBytes + messageBytes;
const exitPidOffset = eventOffset + 16, exitCodeOffset = eventOffset + 24;

export type ExitSource = "pidfd" | "connector";

/** Open it while the process lives, and ask for the status when its pidfd is readable. */
export class ExitWatch {
  readonly #pid: number;
  readonly #pidfd: number;
  /** Receives the one event of the process; -1 when the pidfd has the status. */
  readonly #socket: number;

  private constructor(pid: number, pidfd: number, socket: number) {
    this.#pid = pid;
    this.#pidfd = pidfd;
    this.#socket = socket;
  }

  /** @param source Default: what this kernel supports.
   * @throws {SystemCallError} ESRCH: there is no such process. EPERM and others: the connector is refused, as outside the initial namespaces. */
  static open(pid: number, source: ExitSource = knownSource()): ExitWatch {
    const pidfd = openPidfd(pid);
    try {
      return new ExitWatch(pid, pidfd, source === "connector" ? listen(pid) : -1);
    } catch (error) {
      closeFd(pidfd);
      throw error;
    }
  }

  /** @returns How it ended; undefined while it lives, or when the kernel lost the event. */
  status(): ExitStatus | undefined {
    // The pidfd has the status once the process is reaped, /proc until then.
    const code = (this.#socket < 0 ? undefined : this.#event()) ?? zombieExit(this.#pid) ?? pidfdExit(this.#pidfd);
    return code === undefined ? undefined : statusOf(code);
  }

  close(): void {
    if (this.#socket >= 0) {
      // Unsubscribe: before Linux 6.6 the kernel counts listeners and not their sockets.
      try {
        ask(this.#socket, PROC_CN_MCAST_IGNORE);
      } finally {
        closeFd(this.#socket);
      }
    }
    closeFd(this.#pidfd);
  }

  #event(): number | undefined {
    const buffer = new Uint8Array(256);
    const bytes = Number(libc.read(this.#socket, buffer, buffer.length));
    return bytes >= exitCodeOffset + 4 ? new DataView(buffer.buffer).getInt32(exitCodeOffset, true) : undefined;
  }
}

function knownSource(): ExitSource {
  const [major = 0, minor = 0] = release().split(/[.-]/).map(Number);
  return major > 6 || (major === 6 && minor >= 15) ? "pidfd" : "connector";
}

/** @returns The status as from wait(2), once the process is reaped. */
function pidfdExit(pidfd: number): number | undefined {
  const info = new Uint8Array(infoBytes), view = new DataView(info.buffer);
  view.setBigUint64(0, PIDFD_INFO_EXIT, true);
  if (Number(libc.ioctl(pidfd, PIDFD_GET_INFO, info)) < 0) return undefined;
  return view.getBigUint64(0, true) & PIDFD_INFO_EXIT ? view.getInt32(infoExitOffset, true) : undefined;
}

/** @returns The status as from wait(2) of a process that has ended and is not reaped. @see proc_pid_stat(5), field 52 */
function zombieExit(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).trim().split(" ");
    return fields[0] === "Z" ? Number(fields[49]) : undefined;
  } catch {
    return undefined;
  }
}

/** @returns A socket that gets only the end of this process, so that it never overflows. */
function listen(pid: number): number {
  const socket = check(
    "open the process events connector",
    libc.socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_CONNECTOR),
  );
  try {
    const filter = exitFilter(pid);
    // struct sock_fprog: a count, and at offset 8 the address.
    const program = new Uint8Array(16), view = new DataView(program.buffer);
    view.setUint16(0, filter.length / 8, true);
    view.setBigUint64(8, addressOf(filter), true);
    check("filter process events", libc.setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, program, program.length));
    // struct sockaddr_nl: family, padding, port, groups.
    const address = new Uint8Array(12), addressView = new DataView(address.buffer);
    addressView.setUint16(0, AF_NETLINK, true);
    addressView.setUint32(8, CN_IDX_PROC, true);
    check("bind the process events connector", libc.bind(socket, address, address.length));
    ask(socket, PROC_CN_MCAST_LISTEN);
    return socket;
  } catch (error) {
    closeFd(socket);
    throw error;
  }
}

function ask(socket: number, operation: number): void {
  const message = new Uint8Array(eventOffset + 4), view = new DataView(message.buffer);
  view.setUint32(0, message.length, true);
  const NLMSG_DONE = 3;
  view.setUint16(4, NLMSG_DONE, true);
  view.setUint32(headerBytes, CN_IDX_PROC, true);
  view.setUint32(headerBytes + 4, CN_VAL_PROC, true);
  view.setUint16(headerBytes + 16, 4, true);
  view.setUint32(eventOffset, operation, true);
  const sent = check("ask for process events", libc.write(socket, message, message.length));
  if (sent !== message.length) throw new SystemCallError("ask for process events", 5);
}

/** A classic BPF program that accepts the exit of the one thread whose id is `pid`. It loads big-endian words; the event has the host's byte order.
 * @see https://www.kernel.org/doc/html/latest/networking/filter.html */
function exitFilter(pid: number): Uint8Array {
  const BPF_LD_W_ABS = 0x20, BPF_JEQ = 0x15, BPF_RET = 0x06;
  const swapped = (value: number) => {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value, true);
    return view.getUint32(0, false);
  };
  const steps: readonly (readonly [code: number, whenTrue: number, whenFalse: number, k: number])[] = [
    [BPF_LD_W_ABS, 0, 0, eventOffset],
    [BPF_JEQ, 0, 3, swapped(PROC_EVENT_EXIT)],
    [BPF_LD_W_ABS, 0, 0, exitPidOffset],
    [BPF_JEQ, 0, 1, swapped(pid)],
    [BPF_RET, 0, 0, 0xffffffff],
    [BPF_RET, 0, 0, 0],
  ];
  const program = new Uint8Array(steps.length * 8), view = new DataView(program.buffer);
  for (const [index, [code, whenTrue, whenFalse, k]] of steps.entries()) {
    view.setUint16(index * 8, code, true);
    view.setUint8(index * 8 + 2, whenTrue);
    view.setUint8(index * 8 + 3, whenFalse);
    view.setUint32(index * 8 + 4, k, true);
  }
  return program;
}
