/** The process that touches files for the daemon where that may block for ever: in filesystems that a container has mounted, and in host paths on a
 * network filesystem. It serves one request after the other in one thread without an event loop, and ends with the connection; when it does not
 * answer in time it is killed (`file_processes.ts`). No thread: it cannot be killed alone, and while it hangs the daemon could not end. */
import { rmdirSync, statfsSync, statSync } from "node:fs";
import { posix } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { existsBeneathFd, openBeneathFd, readBeneathFd } from "../../host/files/beneath.ts";
import { kernelTypeOf, openRoot } from "../../host/files/container_root.ts";
import { receivePacket, sendPacket, setSendBuffer } from "../../host/sockets/fd_passing.ts";
import { cloneMountIn } from "../../host/mounts/idmap.ts";
import { lxcfsTargets } from "../../host/mounts/lxcfs.ts";
import { plug } from "../../host/mounts/plug.ts";
import type { MountRoot, PlugRequest } from "../../host/mounts/plug_messages.ts";
import { again, closeFd } from "../../host/process/process.ts";
import { mountOn, submountsOf } from "../../host/mounts/submounts.ts";
import {
  contentBytesMax,
  contentMark,
  type FileAnswer,
  type FileTask,
  packetBytesMax,
  readyMark,
  socketFd,
  type WrittenRoot,
} from "./file_messages.ts";
import { findHolders } from "./holders.ts";
import { identityOf, withSource, written } from "./mount_source.ts";

const O_PATH = 0x200000;

interface Outcome {
  readonly answer: FileAnswer;
  /** Sent with the answer, then closed. */
  readonly fd?: number;
  readonly content?: Uint8Array | undefined;
}

/** Serves until the daemon has closed its end. */
export function serveFiles(): void {
  const buffer = new Uint8Array(packetBytesMax);
  setSendBuffer(socketFd, packetBytesMax);
  sendPacket(socketFd, new Uint8Array([readyMark]));
  for (;;) {
    const packet = receivePacket(socketFd, buffer);
    if (packet === again) continue;
    if (packet.bytes.length === 0) return;
    try {
      const task: FileTask = JSON.parse(new TextDecoder().decode(packet.bytes));
      const { answer, fd, content } = outcomeOf(task, packet.fds);
      sendContent(content);
      sendPacket(socketFd, new TextEncoder().encode(JSON.stringify(answer)), fd);
      if (fd !== undefined) closeFd(fd);
    } finally {
      for (const fd of packet.fds) closeFd(fd);
    }
  }
}

function sendContent(content: Uint8Array = new Uint8Array()): void {
  for (let at = 0; at < content.length; at += contentBytesMax) {
    const part = content.subarray(at, at + contentBytesMax);
    const packet = new Uint8Array(1 + part.length);
    packet[0] = contentMark;
    packet.set(part, 1);
    sendPacket(socketFd, packet);
  }
}

function outcomeOf(task: FileTask, fds: readonly number[]): Outcome {
  try {
    return carryOut(task, fds);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return { answer: { error: message, ...(code === undefined ? {} : { code }) } };
  }
}

function carryOut(task: FileTask, fds: readonly number[]): Outcome {
  switch (task.do) {
    case "clone":
      return withSource(task, (path, isDirectory) => clone(task, path, isDirectory, fds[0]));
    case "identify":
      return { answer: { root: written(withSource(task, identityOf)) } };
    case "look":
      return { answer: look(task.path) };
    case "lxcfs":
      return { answer: { targets: lxcfsTargets(task.path) } };
    case "attach": {
      const { pid, target, isDirectory, uid, gid } = task;
      const [pidfd, tree] = fds as [number, number];
      return plugged({ kind: "attach", pid, pidfd, target, tree, isDirectory, uid, gid });
    }
    case "detach":
    case "isAttached": {
      const { pid, target } = task;
      const inside = { pid, pidfd: fds[0]!, target, ...(task.root ? { root: read(task.root) } : {}) };
      if (task.do === "isAttached") return plugged({ ...inside, kind: "look" });
      return plugged({ ...inside, kind: "detach", below: task.below, lazy: task.lazy });
    }
    case "locate": {
      const { pid, target } = task;
      const below = task.below.map((one) => ({ target: one.target, root: read(one.root) }));
      return plugged({ kind: "locate", pid, pidfd: fds[0]!, target, root: read(task.root), below });
    }
    case "read":
      return inContainer(task.pid, (root) => {
        const { path, maxBytes } = task;
        const approve = (file: number) => refuseKernelFile(task.pid, file, path);
        const content = readBeneathFd(root, path, { maxBytes, inRoot: true, acrossMounts: true, approve });
        return { answer: { isThere: content !== undefined }, content };
      });
    case "exists":
      return inContainer(task.pid, (root) => ({
        answer: { isThere: existsBeneathFd(root, task.path, { acrossMounts: true }) },
      }));
    case "removeDirectory":
      removeDirectory(task.pid, task.path);
      return { answer: {} };
    case "holders":
      return { answer: { holders: findHolders(task.pid, task.processes, task.target, task.below) } };
  }
}

function clone(
  { source, subPath, foreign, recursive, separate, options, propagation }: Extract<FileTask, { do: "clone" }>,
  path: string,
  isDirectory: boolean,
  namespace: number | undefined,
): Outcome {
  const root = written(identityOf(path));
  const submounts = foreign && recursive && isDirectory ? submountsOf(path) : [];
  try {
    const fd = cloneMountIn(path, { namespace, recursive: recursive && !separate, options, propagation });
    return { answer: { isDirectory, root, ...(separate ? { submounts } : {}) }, fd };
  } catch (error) {
    const place = subPath ? posix.join(source, subPath) : source;
    const paths = [path, ...(separate ? [] : submounts.map((submount) => posix.join(path, submount)))];
    const refusing = namespace === undefined ? undefined : paths.find((path) => !takesMap(path, namespace));
    if (refusing === undefined) throw error;
    const where = refusing === path ? place : posix.join(place, posix.relative(path, refusing));
    const type = mountOn(refusing)?.type ?? "unknown type";
    throw new LidoError(
      "bad_request",
      `Cannot mount "${where}" (${type}) with the instance's id map: it is mapped already, or its filesystem cannot be`,
    );
  }
}

function takesMap(path: string, namespace: number): boolean {
  try {
    closeFd(cloneMountIn(path, { namespace, recursive: false }));
    return true;
  } catch {
    return false;
  }
}

function plugged(request: PlugRequest): Outcome {
  const { root, ...answer } = plug(request);
  return { answer: { ...answer, ...(root ? { root: written(root) } : {}) } };
}

function look(path: string): FileAnswer {
  try {
    const info = statSync(path);
    askFilesystem(path);
    return { type: info.isDirectory() ? "directory" : info.isFile() ? "file" : "other" };
  } catch (error) {
    // A path that exists and cannot be reached must not be reported as missing.
    if (!["ENOENT", "ENOTDIR"].includes((error as { code?: string }).code ?? "")) throw error;
    return {};
  }
}

/** For NFS and FUSE, stat(2) may be answered from the kernel's cache for a minute; statfs(2) never is. */
function askFilesystem(path: string): void {
  try {
    statfsSync(path);
  } catch { /* not every filesystem can tell */ }
}

function inContainer<T>(pid: number, work: (root: number) => T): T {
  const root = openRoot(pid);
  try {
    return work(root);
  } finally {
    closeFd(root);
  }
}

function refuseKernelFile(pid: number, file: number, path: string): void {
  const type = kernelTypeOf(pid, file);
  if (type === undefined) return;
  throw new LidoError("bad_request", `Cannot read "${path}": it is a file of the kernel's (${type})`);
}

function removeDirectory(pid: number, path: string): void {
  inContainer(pid, (root) => {
    try {
      const parent = openBeneathFd(root, posix.dirname(path), { flags: O_PATH, acrossMounts: true });
      try {
        rmdirSync(`/proc/self/fd/${parent}/${posix.basename(path)}`);
      } finally {
        closeFd(parent);
      }
    } catch { /* what stays is an empty directory */ }
  });
}

function read({ device, inode, id }: WrittenRoot): MountRoot {
  return { device: BigInt(device), inode: BigInt(inode), id };
}
