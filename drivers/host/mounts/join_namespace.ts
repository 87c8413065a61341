import { check, errno, libc, SystemCallError } from "../ffi/libc.ts";

const CLONE_FS = 0x200, CLONE_NEWNS = 0x20000;
const EINVAL = 22;

/** Moves this thread into a mount namespace. Threads that the runtime starts from this one, at any moment (to compile, to collect garbage), share its
 * working directory, which makes setns(2) fail (EINVAL). One such thread in between is rare; several in a row were never seen.
 * @param namespace An open /proc/PID/ns/mnt. @param what For the error. @throws {SystemCallError} */
export function joinNamespace(namespace: number, what: string): void {
  for (let attempts = 20;; attempts--) {
    check("unshare(CLONE_FS)", libc.unshare(CLONE_FS));
    if (libc.setns(namespace, CLONE_NEWNS) === 0) return;
    const number = errno();
    if (number !== EINVAL || attempts === 0) throw new SystemCallError(what, number);
  }
}
