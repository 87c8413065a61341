/** Volumes that containers share, on every kind of pool: owners of files, refused attaches, and attaching and detaching while they run. */
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "../../support/command.ts";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import {
  fallbackPlace,
  hasIdmappedMounts,
  makePool,
  type SharingPlace,
  sharingPlaces,
} from "../../support/sharing_places.ts";
import { type SeenPool, withContent } from "../../support/volume_content.ts";

interface Instance {
  readonly status: string;
  readonly config: Record<string, string>;
  readonly devices: Record<string, Record<string, string>>;
}

class World {
  readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  ok(...argv: string[]): Promise<string> {
    return this.daemon.ok(...argv);
  }

  sh(instance: string, script: string): Promise<string> {
    return this.daemon.ok("exec", instance, "--", "sh", "-c", script);
  }

  async fails(argv: readonly string[], text: string): Promise<void> {
    const { code, err } = await this.daemon.lido(argv);
    assert.deepEqual([code, err], [1, `Error: ${text}\n`], `lido ${argv.join(" ")}`);
  }

  async instance(name: string): Promise<Instance> {
    return await this.daemon.query(`/1.0/instances/${name}`) as Instance;
  }

  async pid(name: string): Promise<number> {
    return (await this.daemon.query(`/1.0/instances/${name}/state`) as { pid: number }).pid;
  }

  volume(name: string): string {
    return join(this.daemon.directory, "storage-pools/pool/custom", `default_${name}`);
  }

  /** Calls `use` with the directory of a container's or a volume's content, mounted or not. */
  async within<T>(type: "containers" | "custom", name: string, use: (path: string) => T | Promise<T>): Promise<T> {
    const pool = await this.daemon.query("/1.0/storage-pools/pool") as SeenPool;
    return await withContent(this.daemon.directory, pool, { type, name }, use, true);
  }

  /** Targets of a container's disks that a user attached. */
  async mounts(name: string): Promise<string[]> {
    const targets = await this.sh(name, "cut -d' ' -f5 /proc/self/mountinfo");
    return targets.split("\n").filter((path) => /^\/(mnt|srv|data)(\/|$)/.test(path)).sort();
  }
}

/** Starts a daemon with the pool, the image and a default profile that has its root disk on the pool. */
async function withWorld(kind: SharingPlace, test: (world: World) => Promise<void>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const daemon = await Daemon.start();
  // Removed after the daemon.
  const place = stack.use(new AsyncDisposableStack());
  stack.use(daemon);
  place.use(await makePool(daemon, kind));
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=pool");
  await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
  await test(new World(daemon));
}

const differs = (volume: string, text: string) =>
  `Failed to start device "data": Failed mounting volume: Failed shifting storage volume "${volume}" of type "custom" on storage pool "pool": ${text}`;

/** Makes a file of each kind that a change of owners could damage. */
async function plant(rootfs: string): Promise<void> {
  const at = (name: string) => join(rootfs, "root", name);
  writeFileSync(at("suid"), "");
  chmodSync(at("suid"), 0o6755);
  writeFileSync(at("able"), "", { mode: 0o755 });
  await succeed(["setcap", "cap_net_raw+ep", at("able")]);
  writeFileSync(at("listed"), "");
  await succeed(["setfacl", "-m", "u:1000:rw", at("listed")]);
  mkdirSync(at("inherits"));
  await succeed(["setfacl", "-d", "-m", "u:1000:rwx", at("inherits")]);
  writeFileSync(at("mine"), "");
  await succeed(["chown", "1000:1000", at("mine")]);
  await succeed(["ln", at("mine"), at("link")]);
  symlinkSync("/etc/shadow", at("outside"));
}

const seenInside = "cd /root; stat -c '%n %u %g %a %h' suid able listed inherits mine link outside | sort";
const unspoilt = /^able 0 0 755 1\n[^]*mine 1000 1000 644 2\n[^]*suid 0 0 6755 1$/;
const mapChanges = ["security.idmap.isolated=true", "security.privileged=true", "security.privileged=false"];

/** Steps for a pool with idmapped mounts; "c1" is isolated from "c3", and "c2" becomes privileged. */
async function shownToEach(t: Deno.TestContext, world: World): Promise<void> {
  await t.step("shifted: three containers with three maps write, and each sees its own root as owner", async () => {
    await world.ok("storage", "volume", "create", "pool", "all", "security.shifted=true");
    await world.ok("stop", "-f", "c2");
    await world.ok("config", "set", "c2", "security.privileged=true");
    await world.ok("start", "c2");
    const names = ["c1", "c2", "c3"];
    const maps = await Promise.all(names.map((name) => world.sh(name, "cat /proc/self/uid_map")));
    assert.equal(new Set(maps).size, 3);
    for (const name of names) await world.ok("storage", "volume", "attach", "pool", "all", name, "/srv");
    for (const name of names) {
      await world.sh(name, `touch /srv/${name}; touch /srv/u-${name}; chown 7:8 /srv/u-${name}`);
    }
    const expected = names.flatMap((name) => [`/srv/${name} 0 0`, `/srv/u-${name} 7 8`]).sort().join("\n");
    for (const name of names) {
      assert.equal(await world.sh(name, "stat -c '%n %u %g' /srv/[cu]* | sort"), expected);
    }
    assert.equal(await succeed(["stat", "-c", "%u", join(world.volume("all"), "c3")]), "0");
    await world.fails(
      ["storage", "volume", "set", "pool", "all", "security.shifted=false"],
      "Cannot modify shifting with running instances using the volume",
    );
    for (const name of names) await world.ok("storage", "volume", "detach", "pool", "all", name);
  });

  await t.step(
    "what a map's change could spoil is as it was: unprivileged, isolated, privileged and back",
    async () => {
      await world.ok("init", "bb", "c4");
      await world.within("containers", "c4", (path) => plant(join(path, "rootfs")));
      await world.ok("start", "c4");
      const seen = await world.sh("c4", seenInside);
      assert.match(seen, unspoilt);
      for (const key of mapChanges) {
        await world.ok("config", "set", "c4", key);
        await world.ok("restart", "-f", "c4");
        assert.equal(await world.sh("c4", seenInside), seen, key);
      }
      await world.within("containers", "c4", async (path) => {
        assert.match(await succeed(["getcap", "-n", join(path, "rootfs/root/able")]), /cap_net_raw=ep$/);
      });
      await world.ok("delete", "-f", "c4");
    },
  );
}

/** Steps for a pool without idmapped mounts: an overlay, or ZFS before 2.2. "c1" runs there. */
async function changedOnDisk(t: Deno.TestContext, world: World): Promise<void> {
  await t.step("a shifted volume is refused with LXD's text", async () => {
    await world.ok("storage", "volume", "create", "pool", "all", "security.shifted=true");
    await world.fails(
      ["storage", "volume", "attach", "pool", "all", "c1", "data", "/data"],
      'Failed to start device "data": Required idmapping abilities not available',
    );
    await world.ok("storage", "volume", "unset", "pool", "all", "security.shifted");
  });

  await t.step("setuid, capabilities, ACLs and links survive every change of the map", async () => {
    await world.ok("init", "bb", "c4");
    await world.within("containers", "c4", (path) => plant(join(path, "rootfs")));
    await world.ok("start", "c4");
    const seen = await world.sh("c4", seenInside);
    const at = (name: string) => join(world.daemon.directory, "storage-pools/pool/containers/c4/rootfs/root", name);
    assert.match(seen, unspoilt);
    for (const key of mapChanges) {
      await world.ok("config", "set", "c4", key);
      await world.ok("restart", "-f", "c4");
      assert.equal(await world.sh("c4", seenInside), seen, key);
      const map = JSON.parse((await world.instance("c4")).config["volatile.idmap.current"]!);
      const base: number = map[0]?.Hostid ?? 0;
      const rootid = base === 0 ? "" : ` \\[rootid=${base}\\]`;
      assert.match(await succeed(["getcap", "-n", at("able")]), new RegExp(`cap_net_raw=ep${rootid}$`));
      assert.match(await succeed(["getfacl", "-n", "-p", at("listed")]), new RegExp(`user:${base + 1000}:rw-`));
      assert.match(
        await succeed(["getfacl", "-n", "-p", at("inherits")]),
        new RegExp(`default:user:${base + 1000}:rwx`),
      );
      assert.equal(await succeed(["stat", "-c", "%u %h", at("link")]), `${base + 1000} 2`);
    }
    assert.equal(await succeed(["stat", "-c", "%u", "/etc/shadow"]), "0");
    await world.ok("delete", "-f", "c4");
  });
}

for (const place of sharingPlaces) {
  Deno.test(`sharing on ${place.name}`, (t) =>
    withWorld(place, async (world) => {
      const { daemon } = world;
      await world.ok("launch", "bb", "c1");
      await world.ok("launch", "bb", "c2");
      await world.ok("launch", "bb", "c3", "-c", "security.idmap.isolated=true");
      await world.ok("storage", "volume", "create", "pool", "v");

      await t.step("two containers see each other's files with the right owners", async () => {
        for (const name of ["c1", "c2"]) {
          await world.ok("storage", "volume", "attach", "pool", "v", name, "data", "/data");
        }
        await world.sh("c1", "echo hello > /data/f; chown 1000:1000 /data/f; mkdir /data/d");
        assert.equal(
          await world.sh("c2", "cat /data/f; stat -c '%u %g' /data /data/f /data/d"),
          "hello\n0 0\n1000 1000\n0 0",
        );
        const { config } = await daemon.query("/1.0/storage-pools/pool/volumes/custom/v") as Instance;
        const map = (await world.instance("c1")).config["volatile.idmap.current"]!;
        assert.deepEqual([config["volatile.idmap.last"], config["volatile.idmap.next"]], [map, map]);
        const [{ Hostid }] = JSON.parse(map);
        assert.equal(await succeed(["stat", "-c", "%u", join(world.volume("v"), "f")]), String(Hostid + 1000));
      });

      await t.step(
        "an isolated one is refused with LXD's text, running or at its start, and the device is not kept",
        async () => {
          const map = async (name: string) => {
            const [, host, count] = (await world.sh(name, "cat /proc/self/uid_map")).trim().split(/\s+/).map(Number);
            return `ids 0-${count! - 1} as ${host}-${host! + count! - 1}`;
          };
          const text = differs(
            "v",
            `Idmaps of container "c3" and storage volume "v" are not identical: "c3" has ${await map(
              "c3",
            )}; "c1", which uses the volume too, has ${await map("c1")}`,
          );
          await world.fails(["storage", "volume", "attach", "pool", "v", "c3", "data", "/data"], text);
          assert.deepEqual((await world.instance("c3")).devices, {});
          assert.deepEqual(await world.mounts("c3"), []);
          await world.ok("stop", "-f", "c3");
          await world.ok("storage", "volume", "attach", "pool", "v", "c3", "data", "/data");
          await world.fails(["start", "c3"], text);
          await world.ok("storage", "volume", "detach", "pool", "v", "c2");
          await world.ok("config", "device", "remove", "c3", "data");
          await world.ok("start", "c3");
          await world.fails(["storage", "volume", "attach", "pool", "v", "c3", "data", "/data"], text);
        },
      );

      await t.step("made the same, it works; a volume with one user follows its map", async () => {
        await world.ok("config", "set", "c3", "security.idmap.isolated=false");
        await world.ok("restart", "-f", "c3");
        await world.ok("storage", "volume", "attach", "pool", "v", "c3", "data", "/data");
        assert.equal(await world.sh("c3", "stat -c '%u %g' /data/f"), "1000 1000");
        await world.ok("storage", "volume", "detach", "pool", "v", "c1");
        await world.ok("config", "set", "c3", "security.idmap.isolated=true");
        await world.ok("restart", "-f", "c3");
        assert.equal(await world.sh("c3", "stat -c '%u %g' /data/f"), "1000 1000");
        const map = (await world.instance("c3")).config["volatile.idmap.current"]!;
        const [{ Hostid }] = JSON.parse(map);
        assert.equal(await succeed(["stat", "-c", "%u", join(world.volume("v"), "f")]), String(Hostid + 1000));
        await world.ok("storage", "volume", "detach", "pool", "v", "c3");
      });

      const isIdmapped = hasIdmappedMounts(place);
      const pool = await daemon.query("/1.0/storage-pools/pool") as { idmapped_mounts: boolean };
      assert.equal(pool.idmapped_mounts, isIdmapped);
      await (isIdmapped ? shownToEach : changedOnDisk)(t, world);

      const isDir = place.driver === "dir";
      await t.step({
        name: `a quota changes while the container runs${isDir ? ": quotas of dir have a suite of their own" : ""}`,
        ignore: isDir,
        fn: async () => {
          const write = (mebibytes: number) =>
            world.sh("c1", `dd if=/dev/urandom of=/root/big bs=1M count=${mebibytes} 2>&1 && rm /root/big`);
          if (place.driver === "lvm") {
            const shrink = ["config", "device", "override", "c1", "root", "size=100MiB"];
            await daemon.fails(shrink, /Cannot shrink .*: In use/);
            await assert.rejects(write(350), /No space left on device/);
            await world.sh("c1", "rm /root/big");
            await world.ok("config", "device", "override", "c1", "root", "size=500MiB");
            await write(350);
            return;
          }
          await world.ok("config", "device", "override", "c1", "root", "size=100MiB");
          await assert.rejects(write(150), /quota/i);
          await world.sh("c1", "rm /root/big");
          await world.ok("config", "device", "set", "c1", "root", "size=300MiB");
          await write(150);
        },
      });

      await t.step("who keeps a volume busy is named; lazily it goes all the same", async () => {
        await world.ok("storage", "volume", "attach", "pool", "v", "c1", "data", "/data");
        const pid = await world.sh("c1", "cd /data; sleep 1000 >/dev/null 2>&1 & echo $!");
        await world.fails(
          ["storage", "volume", "detach", "pool", "v", "c1"],
          `Failed to stop device "data": Cannot unmount "/data" in the instance: it is in use by sleep 1000 (pid ${pid})`,
        );
        assert.deepEqual(await world.mounts("c1"), ["/data"]);
        await world.ok("storage", "volume", "detach", "--lazy", "pool", "v", "c1");
        assert.deepEqual(await world.mounts("c1"), []);
        await world.sh("c1", `kill ${pid}`);
      });

      await t.step("profiles: attached to running instances, overridden, masked by none", async () => {
        await world.ok("profile", "create", "p1");
        await world.ok("profile", "add", "c1", "p1");
        await world.ok("storage", "volume", "attach-profile", "pool", "all", "p1", "x", "/mnt/x");
        assert.deepEqual(await world.mounts("c1"), ["/mnt/x"]);
        await world.ok("config", "device", "override", "c1", "x", "path=/mnt/y");
        assert.deepEqual(await world.mounts("c1"), ["/mnt/y"]);
        await world.ok("config", "device", "set", "c1", "x", "readonly=true");
        await assert.rejects(world.sh("c1", "touch /mnt/y/f"), /Read-only/);
        await world.ok("config", "device", "unset", "c1", "x", "readonly");
        await world.sh("c1", "touch /mnt/y/f");
        await world.ok("config", "device", "remove", "c1", "x");
        assert.deepEqual(await world.mounts("c1"), ["/mnt/x"]);
        await world.ok("config", "device", "add", "c1", "x", "none");
        assert.deepEqual(await world.mounts("c1"), []);
        await world.ok("storage", "volume", "detach-profile", "pool", "all", "p1");
        await world.ok("config", "device", "remove", "c1", "x");
      });

      await t.step("propagation: what is mounted later on the host comes along, or does not", async () => {
        const host = `${daemon.directory}.shared`;
        mkdirSync(join(host, "later"), { recursive: true });
        await succeed(["mount", "--bind", host, host]);
        try {
          await succeed(["mount", "--make-shared", host]);
          const add = (name: string, ...keys: string[]) =>
            world.ok("config", "device", "add", "c1", name, "disk", `source=${host}`, `path=/mnt/${name}`, ...keys);
          await add("private");
          await add("follows", "propagation=rslave");
          await succeed(["mount", "-t", "tmpfs", "tmpfs", join(host, "later")]);
          assert.equal(
            await world.sh("c1", "cut -d' ' -f5 /proc/self/mountinfo | grep later"),
            "/mnt/follows/later",
          );
          for (const name of ["private", "follows"]) {
            await world.ok("config", "device", "remove", "c1", name, "--lazy");
          }
          assert.deepEqual(await world.mounts("c1"), []);
        } finally {
          await succeed(["umount", "--recursive", host]);
          await succeed(["rm", "-rf", host]);
        }
      });

      await t.step("parts of volumes, host paths, single files, options, in the order of their depth", async () => {
        await world.within("custom", "default_all", (path) => mkdirSync(join(path, "part/deep"), { recursive: true }));
        const host = `${daemon.directory}.host`;
        mkdirSync(host);
        try {
          writeFileSync(join(host, "file"), "from the host\n");
          const add = (name: string, ...keys: string[]) =>
            world.ok("config", "device", "add", "c1", name, "disk", ...keys);
          await add("z", "pool=pool", "source=all/part", "path=/mnt/a");
          await add("b", `source=${host}`, "path=/mnt/a/deep", "shift=true", "raw.mount.options=nosuid,noexec");
          await add("a", `source=${host}/file`, "path=/srv/file", "readonly=true");
          await add("n", "source=/nosuch", "path=/srv/no", "required=false");
          for (const start of [() => world.ok("restart", "-f", "c1"), () => Promise.resolve("")]) {
            await start();
            assert.deepEqual(await world.mounts("c1"), ["/mnt/a", "/mnt/a/deep", "/srv/file"]);
            assert.equal(await world.sh("c1", "cat /srv/file; stat -c %u /mnt/a/deep/file"), "from the host\n0");
            assert.match(await world.sh("c1", "grep /mnt/a/deep /proc/self/mountinfo"), /nosuid,(nodev,)?noexec/);
            await assert.rejects(world.sh("c1", "echo x > /srv/file"), /Read-only/);
          }
          // Mounts below are removed with the disk, and added with it again.
          await world.ok("config", "device", "set", "c1", "z", "source=all");
          assert.equal(await world.sh("c1", "ls -d /mnt/a/part; cat /mnt/a/deep/file"), "/mnt/a/part\nfrom the host");
          for (const name of ["z", "b", "a", "n"]) await world.ok("config", "device", "remove", "c1", name);
          assert.deepEqual(await world.mounts("c1"), []);
        } finally {
          await succeed(["rm", "-rf", host]);
        }
      });

      await t.step(
        "mounts are taken up again by the next daemon; a container that ends by itself frees them",
        async () => {
          await world.ok("storage", "volume", "attach", "pool", "v", "c1", "data", "/data");
          for (const end of [() => daemon.terminate(), () => daemon.kill()]) {
            await end();
            await daemon.up();
            assert.deepEqual(await world.mounts("c1"), ["/data"]);
            await world.ok("storage", "volume", "detach", "pool", "v", "c1");
            assert.deepEqual(await world.mounts("c1"), []);
            await world.ok("storage", "volume", "attach", "pool", "v", "c1", "data", "/data");
          }
          for (const end of ["poweroff", "kill"]) {
            if (end === "kill") process.kill(await world.pid("c1"), "SIGKILL");
            else await daemon.lido(["exec", "c1", "--", "poweroff"]);
            for (const until = Date.now() + 20_000; (await world.instance("c1")).status !== "Stopped";) {
              assert.ok(Date.now() < until, `${end}: it is not known to have stopped`);
              await new Promise((resolve) => setTimeout(resolve, 50));
            }
            await world.ok("start", "c1");
            assert.deepEqual(await world.mounts("c1"), ["/data"]);
          }
          await world.ok("storage", "volume", "detach", "pool", "v", "c1");
        },
      );
    }));
}

Deno.test("sharing: bad input is refused with LXD's texts, and nothing is changed", (t) =>
  withWorld({ name: "btrfs", driver: "btrfs", config: ["size=512MiB"] }, async (world) => {
    const { daemon } = world;
    const host = `${daemon.directory}.host`;
    mkdirSync(host);
    try {
      await succeed(["mkfifo", join(host, "fifo")]);
      await succeed(["python3", "-c", `import socket; socket.socket(socket.AF_UNIX).bind("${host}/socket")`]);
      await world.ok("storage", "create", "other", "dir");
      for (const name of ["c1", "frozen", "off"]) await world.ok("launch", "bb", name);
      await world.ok("stop", "-f", "off");
      await world.ok("pause", "frozen");
      await world.ok("storage", "volume", "create", "pool", "v");
      await world.ok("storage", "volume", "attach", "pool", "v", "c1", "data", "/data");
      await world.ok("storage", "volume", "attach", "pool", "v", "c1", "twice", "/mnt/twice");
      const look = async () => [
        await daemon.query("/1.0/instances?recursion=1"),
        await daemon.query("/1.0/profiles?recursion=1"),
        await daemon.query("/1.0/storage-pools/pool/volumes/custom?recursion=1"),
        await world.mounts("c1"),
        await world.sh("c1", "find / -xdev | sort | md5sum"),
      ];
      const before = await look();
      const base = JSON.parse((await world.instance("c1")).config["volatile.idmap.current"]!)[0].Hostid;
      const attach = (...words: string[]) => ["storage", "volume", "attach", ...words];
      const add = (...words: string[]) => ["config", "device", "add", "c1", "x", "disk", ...words];
      const invalid = (reason: string, device = "x") =>
        `Invalid devices: Device validation failed for "${device}": ${reason}`;
      const missing = (reason: string) => `Failed add validation for device "x": ${reason}`;
      const cases: readonly (readonly [string, readonly string[], string])[] = [
        ["a device's name that is taken", attach("pool", "v", "c1", "data", "/mnt/x"), "Device already exists: data"],
        [
          "two devices at one path",
          attach("pool", "v", "c1", "x", "/data"),
          invalid('More than one disk device uses the same path "/data"', "data"),
        ],
        [
          "the same by another spelling",
          attach("pool", "v", "c1", "x", "/mnt/../data/"),
          invalid('More than one disk device uses the same path "/data"', "data"),
        ],
        [
          "path / twice",
          add("path=/", "pool=other"),
          "Invalid expanded devices: Failed detecting root disk device: More than one root device found",
        ],
        [
          "a relative path",
          attach("pool", "v", "c1", "x", "mnt/x"),
          invalid('Invalid value for device option "path": Must be an absolute path: "mnt/x"'),
        ],
        [
          "an empty path",
          add("path=", "pool=pool", "source=v"),
          invalid("Custom filesystem volumes require a path to be defined"),
        ],
        ["no source", add("path=/mnt/x"), invalid('Disk entry is missing the required "source" or "path" property')],
        [
          "a source that is not there",
          add("path=/mnt/x", "source=/nosuch"),
          missing('Missing source path "/nosuch" for disk "x"'),
        ],
        [
          "a relative source",
          add("path=/mnt/x", "source=nosuch"),
          invalid("Source path must be absolute for local sources"),
        ],
        [
          "a FIFO",
          add("path=/mnt/x", `source=${host}/fifo`),
          missing(`Source path "${host}/fifo" for disk "x" is neither a directory nor a regular file`),
        ],
        [
          "a socket",
          add("path=/mnt/x", `source=${host}/socket`),
          missing(`Source path "${host}/socket" for disk "x" is neither a directory nor a regular file`),
        ],
        [
          "a volume that is not there",
          add("path=/mnt/x", "pool=pool", "source=w"),
          missing('Failed loading custom volume: Storage volume not found: "w" in pool "pool"'),
        ],
        [
          "a volume of another pool",
          add("path=/mnt/x", "pool=other", "source=v"),
          missing('Failed loading custom volume: Storage volume not found: "v" in pool "other"'),
        ],
        [
          "a pool that is not there",
          add("path=/mnt/x", "pool=no", "source=v"),
          missing('Failed to get storage pool "no": Storage pool not found'),
        ],
        [
          "a part that is not there",
          add("path=/mnt/x", "pool=pool", "source=v/no"),
          'Failed to start device "x": Missing path "no" in storage volume "v"',
        ],
        [
          "a part that climbs",
          add("path=/mnt/x", "pool=pool", "source=v/../w"),
          invalid('Invalid value for device option "source": Not a path within a volume: "v/../w"'),
        ],
        [
          "an instance that is not there",
          attach("pool", "v", "nosuch", "x", "/mnt/x"),
          'Instance not found: "nosuch" in project "default"',
        ],
        ["a frozen instance", attach("pool", "v", "frozen", "x", "/mnt/x"), 'Instance is frozen: "frozen"'],
        [
          "another project's",
          ["query", "/1.0/storage-pools/pool/volumes/custom/v?project=no"],
          'Project "no" not found: "default" is the only one',
        ],
        [
          "detach of what is not attached",
          ["storage", "volume", "detach", "pool", "v", "off"],
          'No device found for this storage volume: "off" has no disk of "v" in pool "pool"',
        ],
        [
          "detach of a device that is not there",
          ["storage", "volume", "detach", "pool", "v", "c1", "no"],
          `The specified device doesn't exist: "no": there are data, twice`,
        ],
        [
          "an ambiguous detach",
          ["storage", "volume", "detach", "pool", "v", "c1"],
          "More than one device matches, specify the device name: data, twice",
        ],
        [
          "raw.idmap within the subordinate ids",
          ["config", "set", "off", `raw.idmap=both ${base + 1} 5`],
          "Failed to get ID map: Host id is in the range of subids",
        ],
        [
          "raw.idmap that overlaps",
          ["config", "set", "off", "raw.idmap=both 5 5\nuid 6 5"],
          "Failed to get ID map: Invalid raw.idmap: two entries map the same container id",
        ],
      ];
      for (const [name, argv, text] of cases) await t.step(name, () => world.fails(argv, text));
      assert.deepEqual(await look(), before);
    } finally {
      await succeed(["rm", "-rf", host]);
    }
  }));

Deno.test("sharing: the real lxc tells the same story", (t) =>
  withWorld({ name: "btrfs", driver: "btrfs", config: ["size=512MiB"] }, async ({ daemon }) => {
    const lxc = (...argv: string[]) => daemon.lxc(...argv);
    const fails = async (argv: readonly string[], text: string) => {
      await assert.rejects(
        lxc(...argv),
        (error: Error) => error.message.includes(`Error: ${text}`) || assert.fail(error.message),
      );
    };
    await t.step("shared, refused, made the same", async () => {
      await lxc("launch", "bb", "c1");
      await lxc("launch", "bb", "c2");
      await lxc("launch", "bb", "c4", "-c", "security.idmap.isolated=true");
      await lxc("storage", "volume", "create", "pool", "v");
      for (const name of ["c1", "c2"]) await lxc("storage", "volume", "attach", "pool", "v", name, "data", "/data");
      await lxc("exec", "c1", "--", "sh", "-c", "echo hello > /data/f; chown 1000:1000 /data/f");
      assert.equal(await lxc("exec", "c2", "--", "sh", "-c", "cat /data/f; stat -c %u:%g /data/f"), "hello\n1000:1000");
      const refused = differs("v", 'Idmaps of container "c4" and storage volume "v" are not identical: "c4" has ids ');
      await fails(["storage", "volume", "attach", "pool", "v", "c4", "data", "/data"], refused);
      assert.doesNotMatch(await lxc("config", "device", "show", "c4"), /data/);
      await fails(
        ["storage", "volume", "detach", "pool", "v", "c4"],
        "No device found for this storage volume",
      );
      await lxc("config", "set", "c4", "security.idmap.isolated=false");
      await lxc("restart", "-f", "c4");
      await lxc("storage", "volume", "attach", "pool", "v", "c4", "data", "/data");
      assert.equal(await lxc("exec", "c4", "--", "cat", "/data/f"), "hello");
    });
    await t.step("shifted, with another map each; by a profile", async () => {
      await lxc("storage", "volume", "create", "pool", "all", "security.shifted=true");
      await lxc("config", "set", "c2", "security.idmap.isolated=true");
      await lxc("storage", "volume", "detach", "pool", "v", "c2");
      await lxc("restart", "-f", "c2");
      await lxc("profile", "create", "pp");
      for (const name of ["c1", "c2"]) await lxc("profile", "add", name, "pp");
      await lxc("storage", "volume", "attach-profile", "pool", "all", "pp", "x", "/srv");
      for (const name of ["c1", "c2"]) await lxc("exec", name, "--", "touch", `/srv/${name}`);
      for (const name of ["c1", "c2"]) {
        assert.equal(await lxc("exec", name, "--", "sh", "-c", "stat -c %u /srv/*"), "0\n0");
      }
      await lxc("config", "device", "override", "c1", "x", "path=/mnt/y");
      assert.equal(await lxc("exec", "c1", "--", "ls", "/mnt/y"), "c1\nc2");
      await lxc("storage", "volume", "detach-profile", "pool", "all", "pp", "x");
      await lxc("config", "device", "remove", "c1", "x");
    });
  }));

Deno.test(`sharing on ${fallbackPlace.name}, where owners must be changed on disk`, (t) =>
  withWorld(fallbackPlace, async (world) => {
    await world.ok("launch", "bb", "c1");
    await changedOnDisk(t, world);
  }));
