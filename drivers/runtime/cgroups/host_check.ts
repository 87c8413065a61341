import { access, readFile } from "node:fs/promises";
import type { CgroupLayout } from "./cgroup.ts";

/** @returns The obstacles to running containers on this host, each with how to remove it. */
export async function checkHost(crunPath: string, layout: CgroupLayout): Promise<string[]> {
  const problems: string[] = [];
  if (!await access(crunPath).then(() => true, () => false)) {
    problems.push(`"crun" is not installed: apt-get install crun`);
  }
  if (layout === "none") {
    problems.push("no cgroups are mounted at /sys/fs/cgroup: mount -t cgroup2 cgroup2 /sys/fs/cgroup");
  }
  if (!await access("/proc/self/ns/user").then(() => true, () => false)) {
    problems.push("the kernel has no user namespaces (CONFIG_USER_NS)");
  } else {
    const most = (await readFile("/proc/sys/user/max_user_namespaces", "utf8").catch(() => "1")).trim();
    if (most === "0") problems.push("user namespaces are switched off: sysctl user.max_user_namespaces=15000");
  }
  if (process.getuid?.() !== 0) problems.push("not running as root");
  return problems;
}
