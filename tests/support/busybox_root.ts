import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";

/** Makes the smallest root filesystem that boots: busybox as init, shell and all tools. Its files belong to root, as in an image. */
export function makeBusyboxRoot(root: string): void {
  for (const directory of ["bin", "sbin", "etc", "dev", "proc", "sys", "tmp", "root", "mnt", "run"]) {
    mkdirSync(join(root, directory), { recursive: true });
  }
  chmodSync(join(root, "tmp"), 0o1777);
  copyFileSync("/bin/busybox", join(root, "bin/busybox"));
  chmodSync(join(root, "bin/busybox"), 0o755);
  for (const tool of execFileSync("/bin/busybox", ["--list"]).toString().trim().split("\n")) {
    if (tool !== "busybox") symlinkSync("busybox", join(root, "bin", tool));
  }
  symlinkSync("../bin/busybox", join(root, "sbin/init"));
  writeFileSync(join(root, "etc/inittab"), "::sysinit:/bin/true\nnull::respawn:/bin/sleep 2147483647\n");
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\nuser:x:1000:\n");
}
