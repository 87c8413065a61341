/** Mistakes of users and in images: a clear error, and nothing changed. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Daemon } from "../../support/daemon.ts";
import { recordsDirectory } from "../../../drivers/storage/layout.ts";
import { busyboxImage, craftedImage, truncated } from "../../support/image.ts";

Deno.test("bad input is refused by name and changes nothing", async (t) => {
  const image = await busyboxImage();
  await using daemon = await Daemon.start();
  await daemon.furnish(image);
  await daemon.ok("launch", "bb", "c1");
  await daemon.ok("storage", "volume", "create", "fast", "data");
  await daemon.ok("storage", "volume", "attach", "fast", "data", "c1", "/mnt");
  const snapshot = async () => [
    await daemon.query("/1.0/storage-pools?recursion=1"),
    await daemon.query("/1.0/instances?recursion=1"),
    await daemon.query("/1.0/images?recursion=1"),
    await daemon.query("/1.0/profiles?recursion=1"),
    await daemon.query("/1.0/storage-pools/fast/volumes?recursion=1"),
    await daemon.query("/1.0/storage-pools/plain/volumes?recursion=1"),
    readdirSync(join(daemon.directory, "images")).sort(),
    readdirSync(join(daemon.directory, "disks")).sort(),
    readdirSync(join(daemon.directory, "storage-pools")).sort(),
    ...["fast", "plain"].flatMap((pool) =>
      readdirSync(join(daemon.directory, "storage-pools", pool)).sort()
        .map((type) => [pool, type, readdirSync(join(daemon.directory, "storage-pools", pool, type)).sort()])
    ),
  ];
  const before = await snapshot();

  const cases: readonly (readonly [string, readonly string[], RegExp])[] = [
    ["unknown pool", ["storage", "show", "nosuch"], /Storage pool not found: "nosuch"/],
    ["unknown driver", ["storage", "create", "p", "nosuch"], /"nosuch": .*btrfs.* are allowed/],
    ["pool that exists", ["storage", "create", "fast", "dir"], /already exists/],
    ["pool in use", ["storage", "delete", "fast"], /in use|used by/i],
    ["pool's name", ["storage", "create", "a b", "dir"], /Invalid|name/],
    ["unknown pool key", ["storage", "create", "p", "dir", "nosuch=1"], /"nosuch": .*source.* are allowed on dir/],
    [
      "key of another driver",
      ["storage", "create", "p", "dir", "btrfs.mount_options=ro"],
      /"btrfs\.mount_options": .* are allowed on dir/,
    ],
    [
      "size",
      ["storage", "create", "p", "btrfs", "size=much"],
      /option "size": Invalid size "much": .*GiB.* is allowed/,
    ],
    ["size too small", ["storage", "create", "p", "btrfs", "size=1MiB"], /1MiB|at least/],
    ["volume on an unknown pool", ["storage", "volume", "create", "nosuch", "v"], /Storage pool not found: "nosuch"/],
    ["volume that exists", ["storage", "volume", "create", "fast", "data"], /already exists/],
    ["volume's name", ["storage", "volume", "create", "fast", "-x"], /-x|Unknown option/],
    ["volume's key", ["storage", "volume", "create", "fast", "v", "nosuch=1"], /"nosuch": .*size.* are allowed/],
    [
      "unknown volume",
      ["storage", "volume", "show", "fast", "nosuch"],
      /not found: "nosuch" of type "custom" in pool "fast"/,
    ],
    ["volume in use", ["storage", "volume", "delete", "fast", "data"], /in use/],
    ["attach an unknown volume", ["storage", "volume", "attach", "fast", "nosuch", "c1", "/x"], /not found: "nosuch"/],
    [
      "attach to an unknown instance",
      ["storage", "volume", "attach", "fast", "data", "nosuch", "/x"],
      /Instance not found: "nosuch"/,
    ],
    ["attach at a relative path", ["storage", "volume", "attach", "fast", "data", "c1", "two", "x"], /x/],
    [
      "attach at a path that is taken",
      ["storage", "volume", "attach", "fast", "data", "c1", "two", "/mnt"],
      /\/mnt|path/,
    ],
    [
      "detach what is not attached",
      ["storage", "volume", "detach", "fast", "nosuch", "c1"],
      /No device found for this storage volume: "c1" has no disk of "nosuch"/,
    ],
    ["unknown image", ["launch", "nosuch", "c2"], /not found: "nosuch"/],
    ["unknown pool for an instance", ["launch", "bb", "c2", "-s", "nosuch"], /pool not found: "nosuch"/],
    ["instance that exists", ["launch", "bb", "c1"], /already/],
    ["instance's name", ["launch", "bb", "c_1"], /Invalid|name/],
    ["unknown profile", ["launch", "bb", "c2", "-p", "nosuch"], /nosuch/],
    ["unknown instance key", ["launch", "bb", "c2", "-c", "nosuch=1"], /key: nosuch: .*limits\.\*.* are allowed/],
    ["key of a group", ["config", "set", "c1", "limits.cpus=1"], /limits\.cpus: .*limits\.cpu, .* are allowed/],
    ["boolean", ["config", "set", "c1", "boot.autostart=maybe"], /"boot\.autostart": .*"maybe": true or false/],
    ["memory", ["config", "set", "c1", "limits.memory=much"], /"limits\.memory": .*much: a size such as .* is allowed/],
    ["CPUs", ["config", "set", "c1", "limits.cpu=x"], /"limits\.cpu": Invalid CPU limit syntax: .* is allowed/],
    ["server key", ["config", "set", "nosuch.key=1"], /"nosuch\.key" .*: core\.https_address, .* are allowed/],
    ["device key", ["config", "device", "add", "c1", "d", "disk", "foo=1"], /"foo": .*path, .*source.* are allowed/],
    ["key of a device that has none", ["config", "device", "add", "c1", "d", "none", "foo=1"], /"foo": .*no options/],
    ["method of a query", ["query", "-X", "DELET", "/1.0"], /Invalid method "DELET": GET, .* are allowed/],
    ["device type", ["config", "device", "add", "c1", "d", "zork"], /Unsupported device type: .* allowed/],
    ["unknown device", ["profile", "device", "remove", "default", "nosuch"], /"nosuch": there is root$/m],
    ["unknown property", ["image", "unset-property", "bb", "nosuch"], /Property not found: "nosuch": there (is|are) /],
    ["unknown column", ["list", "-c", "nX"], /char "X" in "nX": .*n .* are allowed/],
    ["unknown instance", ["start", "nosuch"], /Instance not found: "nosuch" in project "default"$/m],
    ["start what runs", ["start", "c1"], /already running/],
    ["delete what runs", ["delete", "c1"], /running/],
    ["unknown operation", ["operation", "show", "00000000-0000-0000-0000-000000000000"], /Operation not found: "0000/],
    ["unknown verb", ["storage", "frobnicate"], /frobnicate/],
    ["unknown command", ["frobnicate"], /frobnicate/],
    ["unknown flag", ["list", "--frobnicate"], /frobnicate/],
    ["unknown format", ["list", "-f", "xml"], /"xml": csv, json, table, yaml, compact are allowed/],
    ["missing argument", ["storage", "show"], /missing|argument/i],
    ["image file that is not there", ["image", "import", "/nosuch/file"], /nosuch/],
    ["alias that is taken", ["image", "import", image, "--alias", "bb"], /already exists/],
    ["unknown path of the API", ["query", "/1.0/nosuch"], /not found: GET \/1\.0\/nosuch/],
    ["root disk away", ["profile", "device", "remove", "default", "root"], /root/],
  ];
  for (const [name, argv, pattern] of cases) {
    await t.step(`${name}: lido ${argv.join(" ")}`, () => daemon.fails(argv, pattern));
  }

  await t.step("images: truncated, leading out of the tree, with devices", async () => {
    for (const fraction of [0.1, 0.9]) {
      using half = truncated(image, fraction);
      await daemon.fails(["image", "import", half.path], /truncated|unexpected end|damaged|corrupt|end of/i);
    }
    for (
      const entry of [
        { name: "../out", content: "x" },
        { name: "/tmp/lido-out", content: "x" },
        { name: "rootfs/../../out", content: "x" },
        { name: "rootfs/mem", type: "3" },
      ]
    ) {
      using crafted = craftedImage([entry]);
      const { code, err } = await daemon.lido(["image", "import", crafted.path, "--alias", "hostile"]);
      // Errors that only unpacking can find are refused by `init`.
      if (code === 0) {
        await daemon.fails(["init", "hostile", "h1"], new RegExp(entry.name.replace(/^\//, "").replaceAll(".", "\\.")));
        await daemon.ok("image", "delete", "hostile");
      } else {
        assert.match(err, /^Error: [^\n]+\n$/);
      }
    }
  });

  assert.deepEqual(await snapshot(), before, "something was changed");
});

Deno.test("a pool that is full while an image is unpacked leaves nothing behind", async () => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "small", "btrfs", "size=115MiB");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=small");
  const blob = { name: "rootfs/blob", content: "x".repeat(1 << 20) };
  using crafted = craftedImage(Array.from({ length: 200 }, (_, index) => ({ ...blob, name: `rootfs/blob-${index}` })));
  await daemon.ok("image", "import", crafted.path, "--alias", "big");
  await daemon.fails(["init", "big", "c1"], /no space|full|ENOSPC/i);
  assert.deepEqual(await daemon.query("/1.0/instances"), []);
  assert.deepEqual(await daemon.query("/1.0/storage-pools/small/volumes"), []);
  const pool = join(daemon.directory, "storage-pools/small");
  const types = readdirSync(pool).filter((name) => name !== recordsDirectory);
  assert.deepEqual(types.flatMap((type) => readdirSync(join(pool, type))), []);
});
