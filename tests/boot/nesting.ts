/** Tests of nested containers. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { type CommandOptions, succeed } from "../support/command.ts";
import { Daemon, executable } from "../support/daemon.ts";
import { madeImage } from "../support/image.ts";
import { untilBooted } from "./images.ts";

/** Does with util-linux what docker's runtime does: new namespaces of every kind, the kernel's filesystems mounted in them, an overlay as root. */
const asDocker = `set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
mount -t proc proc /mnt/root/proc
mount -t sysfs sysfs /mnt/root/sys
mount -t cgroup2 cgroup2 /mnt/root/sys/fs/cgroup
mount -t tmpfs tmpfs /mnt/root/run
mkdir /mnt/root/old
cd /mnt/root
pivot_root . old
umount -l /old
hostname inner
echo $$ $(hostname) $(ls /sys/class/net) $(ls /proc | grep -c '^[0-9]')
`;
/** Uses what security.nesting allows to root of a user namespace in a container. */
const asUser = `set -e
mount -t tmpfs tmpfs /mnt
mount -t sysfs sysfs /mnt
hostname inner
echo $$ $(hostname) $(ls /mnt/class/net) $(ls /proc | grep -c '^[0-9]')
`;
const unshare = "unshare --mount --uts --ipc --pid --net --cgroup --fork --mount-proc";

/** Runs both scripts in a container with security.nesting. */
export async function nest(daemon: Daemon, name: string): Promise<void> {
  const sh = (script: string, options: CommandOptions = {}) =>
    succeed([executable, "exec", name, "--", "sh", "-c", script], { ...options, env: daemon.environment });
  assert.match(await sh(`${unshare} sh`, { input: asDocker }), /^1 inner lo \d$/);
  assert.match(await sh(`${unshare} --user --map-root-user sh`, { input: asUser }), /^1 inner lo \d$/);
}

/** @param host Prefix of the daemon's command line, to run it in the mount namespace of another host. */
export async function runPodman(host: readonly string[] = []): Promise<void> {
  const image = await madeImage("debian/12-podman");
  await using daemon = await Daemon.start({ argv: [...host, executable] });
  await daemon.furnish(image);
  await daemon.ok("launch", "bb", "c1", "-c", "security.nesting=true");
  const sh = (script: string, options: CommandOptions = {}) =>
    succeed([executable, "exec", "c1", "--", "sh", "-c", script], { ...options, env: daemon.environment });
  await sh(untilBooted.systemd);
  await sh("mkdir -p /root/image/bin && cat >/root/image/bin/sh && chmod 755 /root/image/bin/sh", {
    input: await readFile("/bin/busybox"),
  });
  await sh("tar -C /root/image -c . | podman import - inner");
  const isUnified = await sh("stat -fc %T /sys/fs/cgroup") === "cgroup2fs";
  if (host.length > 0) assert.ok(isUnified, "cgroup2 alone");
  // Podman gets no cgroup where it does not know the host's v1 hierarchies (the same on LXD). A cgroup2 tree whose controllers are bound to v1 has no
  // pids controller for podman's default limit of processes.
  const controllers = isUnified ? (await sh("cat /sys/fs/cgroup/cgroup.controllers")).split(" ") : [];
  const cgroups = !isUnified ? "--cgroups=disabled" : controllers.includes("pids") ? "" : "--pids-limit=-1";
  const run = `podman run ${cgroups} --rm --network none localhost/inner`;
  assert.equal(await sh(`${run} /bin/sh -c 'echo $$; exit 0'`), "1");
  const { code } = await daemon.lido(["exec", "c1", "--", "sh", "-c", `${run} /bin/sh -c 'exit 7'`]);
  assert.equal(code, 7);
  if (!isUnified) return;
  // The nested container has a cgroup of its own below the outer container's.
  await sh(`podman run ${cgroups} -d --name kept --network none localhost/inner /bin/sh -c 'sleep 1000'`);
  assert.match(await sh("cat /proc/$(podman inspect -f '{{.State.Pid}}' kept)/cgroup"), /^0::\/.*libpod.+$/m);
  await sh("podman rm -f -t 0 kept");
}
