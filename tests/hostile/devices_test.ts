/** Devices of the host that a container must not reach by a node in its tree, whoever made the node. */
import assert from "node:assert/strict";
import { copyFileSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "../support/command.ts";
import { Daemon, executable, projectRoot } from "../support/daemon.ts";
import { busyboxImage } from "../support/image.ts";
import { loopDevice } from "../support/loop_device.ts";
import { UnifiedHost } from "../support/unified_host.ts";

const secret = "the host's disk";

interface Disk {
  readonly path: string;
  /** Major and minor number, for mknod: "7", "3". */
  readonly numbers: readonly [string, string];
}

/** Makes a disk of the host whose content must be neither read nor changed. */
async function hostDisk(daemon: Daemon, undo: AsyncDisposableStack): Promise<Disk> {
  const path = await loopDevice(daemon.directory, "victim", undo, 16);
  writeFileSync(path, secret.padEnd(512));
  const [major, minor] = (await succeed(["stat", "-c", "%Hr %Lr", path])).split(" ");
  return { path, numbers: [major!, minor!] };
}

/** Makes nodes as a bug of the daemon could leave them: accessible for all, and owned by the container's root. */
async function smuggle(disk: Disk, directory: string): Promise<void> {
  for (const [name, type] of [["block", "b"], ["character", "c"]] as const) {
    // The character node is /dev/kmsg, the host's log.
    const numbers = type === "b" ? disk.numbers : ["1", "11"];
    await succeed(["mknod", "-m", "666", join(directory, name), type, ...numbers]);
  }
}

async function refused(daemon: Daemon, name: string, directory: string): Promise<void> {
  for (const node of ["block", "character"]) {
    for (const script of [`head -c 9 < ${directory}/${node}`, `echo overwritten > ${directory}/${node}`]) {
      const { code, out, err } = await daemon.lido(["exec", name, "--", "sh", "-c", script]);
      assert.notEqual(code, 0, `${name}: "${script}" was done: ${out}`);
      assert.match(err, /Operation not permitted|Permission denied/, `${name}: ${script}`);
    }
  }
}

/** Asserts that the container's own devices work, and that nodes can be made which unpacking and overlay need. */
async function usable(daemon: Daemon, name: string, isPrivileged: boolean): Promise<void> {
  const script = [
    "set -e",
    "echo x > /dev/null; head -c 1 /dev/zero > /dev/null; head -c 1 /dev/urandom > /dev/null",
    "if echo x > /dev/full; then exit 1; fi 2> /dev/null",
    "mknod /whiteout c 0 0; test -c /whiteout",
    ...(isPrivileged ? ["mknod /unpacked b 8 0; test -b /unpacked"] : []),
  ].join("\n");
  await daemon.ok("exec", name, "--", "sh", "-c", script);
  // A terminal is a pty of the container's own.
  await daemon.ok("exec", "-t", name, "--", "sh", "-c", "echo x > /dev/tty");
}

/** Mounts of the container on which devices can be opened. */
async function deviceMounts(daemon: Daemon, name: string): Promise<string[]> {
  const lines = (await daemon.ok("exec", name, "--", "cat", "/proc/self/mountinfo")).split("\n");
  return lines.map((line) => line.split(" ")).filter((fields) => !fields[5]!.split(",").includes("nodev"))
    .map((fields) => fields[4]!);
}

async function attack(daemon: Daemon, name: string, pool: string, disk: Disk, isPrivileged: boolean): Promise<void> {
  await daemon.ok("init", "bb", name, "-s", pool, ...(isPrivileged ? ["-c", "security.privileged=true"] : []));
  const rootfs = join(daemon.directory, "storage-pools", pool, "containers", name, "rootfs");
  await smuggle(disk, rootfs);
  await daemon.ok("start", name);
  await refused(daemon, name, "");
  await usable(daemon, name, isPrivileged);

  // Attached while it runs. Where the administrator allows devices on the mount, the cgroup still refuses them.
  const volume = `v-${name}`;
  await daemon.ok("storage", "volume", "create", pool, volume);
  await smuggle(disk, join(daemon.directory, "storage-pools", pool, "custom", `default_${volume}`));
  const device = ["disk", `pool=${pool}`, `source=${volume}`];
  await daemon.ok("config", "device", "add", name, "hot", ...device, "path=/hot");
  await daemon.ok("config", "device", "add", name, "dev", ...device, "path=/dev-allowed", "raw.mount.options=dev");
  await refused(daemon, name, "/hot");
  await refused(daemon, name, "/dev-allowed");
  const allowed = (await deviceMounts(daemon, name)).filter((path) => !/^\/(dev|proc|sys)(\/|$)/.test(path));
  // crun remounts a privileged container's root with devices; its own root could do so too, and its debootstrap needs it.
  assert.deepEqual(allowed, [...(isPrivileged ? ["/"] : []), "/dev-allowed"]);
  await daemon.ok("restart", "-f", name);
  await refused(daemon, name, "/hot");
  await refused(daemon, name, "/dev-allowed");

  if (isPrivileged) {
    // A privileged container's root may mount the hierarchy and write anything into its own cgroup.
    const script = "mkdir -p /cg; mount -t cgroup -o devices none /cg && echo a > /cg/devices.allow";
    await daemon.lido(["exec", name, "--", "sh", "-c", script]);
    await refused(daemon, name, "/dev-allowed");
  }
  assert.equal(readFileSync(disk.path).subarray(0, secret.length).toString(), secret);
  await daemon.ok("delete", "-f", name);
  await daemon.ok("storage", "volume", "delete", pool, volume);
}

Deno.test("a node of the host's disk cannot be opened in a container, wherever it comes from", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.furnish(await busyboxImage());
  await using undo = new AsyncDisposableStack();
  const disk = await hostDisk(daemon, undo);
  for (const pool of ["fast", "plain"]) {
    await t.step(`unprivileged, on ${pool}`, () => attack(daemon, "c1", pool, disk, false));
    await t.step(`privileged, on ${pool}`, () => attack(daemon, "c2", pool, disk, true));
  }
});

Deno.test("the same where cgroup2 is all there is", async (t) => {
  await using host = await UnifiedHost.open();
  await using daemon = await Daemon.start({ argv: [...host.argv, executable] });
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=plain");
  await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
  await using undo = new AsyncDisposableStack();
  const disk = await hostDisk(daemon, undo);
  await t.step("unprivileged", () => attack(daemon, "c1", "plain", disk, false));
  await t.step("privileged", () => attack(daemon, "c2", "plain", disk, true));
  await t.step("a privileged one cannot detach the program that confines it", async () => {
    await daemon.ok("init", "bb", "c3", "-s", "plain", "-c", "security.privileged=true");
    const rootfs = join(daemon.directory, "storage-pools/plain/containers/c3/rootfs");
    await smuggle(disk, rootfs);
    // Needs Python in the container: use the host's.
    for (const name of ["lib", "lib64"]) {
      const path = join(rootfs, name);
      rmSync(path, { recursive: true, force: true });
      symlinkSync(`usr/${name}`, path);
    }
    copyFileSync(join(projectRoot, "tests/fixtures/detach_devices.py"), join(rootfs, "detach.py"));
    await daemon.ok("config", "device", "add", "c3", "usr", "disk", "source=/usr", "path=/usr", "readonly=true");
    await daemon.ok("start", "c3");
    const python = ["/usr/bin/python3", "-I", "-S", "/detach.py", "/cg"];
    const script = `mkdir -p /cg; mount -t cgroup2 none /cg && ${python.join(" ")}`;
    const { out, err } = await daemon.lido(["exec", "c3", "--", "sh", "-c", script]);
    assert.match(out, /^query ok\n(by number \w+\n|detach \w+\n)*detach EINVAL\n$/, err);
    assert.match(out, /by number EPERM/, "there is a program");
    assert.doesNotMatch(out, /by number ok|detach ok/);
    await refused(daemon, "c3", "");
    await daemon.ok("delete", "-f", "c3");
  });
});
