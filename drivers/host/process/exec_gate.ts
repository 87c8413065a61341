import { check, cString, libc } from "../ffi/libc.ts";

/** Delays the execution of one file. Events are not read from the descriptor: a waiting execution continues when it is closed,
 * also by the end of this process. @see fanotify(7), FAN_OPEN_EXEC_PERM in fanotify_mark(2) */

const FAN_CLOEXEC = 1, FAN_CLASS_CONTENT = 4;
const FAN_MARK_ADD = 1;
const FAN_OPEN_EXEC_PERM = 0x40000;
const AT_FDCWD = -100;

/** @param file A descriptor of the file, O_PATH suffices. @returns A descriptor: until it is closed, executions of the file wait.
 * @throws {SystemCallError} Also where the kernel or the filesystem does not support such events. */
export function holdExecution(file: number): number {
  const gate = check("watch executions", libc.fanotify_init(FAN_CLOEXEC | FAN_CLASS_CONTENT, 0));
  const path = cString(`/proc/self/fd/${file}`);
  try {
    check("watch a file", libc.fanotify_mark(gate, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, AT_FDCWD, path));
    return gate;
  } catch (error) {
    libc.close(gate);
    throw error;
  }
}
