/** Recovery after the database is lost: everything on disk comes back as it was. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createHost } from "../../../drivers/host/real.ts";
import { command, succeed } from "../../support/command.ts";
import { makeBusyboxRoot } from "../../support/busybox_root.ts";
import { Daemon, executable, projectRoot } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";
import { Terminal } from "../../support/terminal.ts";

const fixtures = join(projectRoot, "tests/fixtures");
const custom = (pool: string) => `/1.0/storage-pools/${pool}/volumes/custom`;

/** What the API shows of storage and instances, without what a restart changes. */
async function views(daemon: Daemon): Promise<unknown> {
  const found: Record<string, unknown> = {};
  for (const pool of await daemon.query("/1.0/storage-pools?recursion=1") as { name: string; used_by: string[] }[]) {
    const used = pool.used_by.filter((url) => !url.startsWith("/1.0/images/") && !url.startsWith("/1.0/profiles/"));
    found[`pool ${pool.name}`] = { ...pool, used_by: used };
    for (const volume of await daemon.query(`${custom(pool.name)}?recursion=1`) as { name: string }[]) {
      found[`${pool.name}/${volume.name}`] = volume;
      if (volume.name.includes("/")) continue; // a snapshot
      found[`${pool.name}/${volume.name}/*`] = await daemon.query(
        `${custom(pool.name)}/${volume.name}/snapshots?recursion=1`,
      );
    }
  }
  for (const instance of await daemon.query("/1.0/instances?recursion=1") as { name: string; config: object }[]) {
    const { "volatile.last_state.power": _, ...config } = instance.config as Record<string, string>;
    const { last_used_at: _used, expanded_config: _expanded, ...rest } = instance as unknown as Record<string, unknown>;
    found[instance.name] = { ...rest, config };
    const snapshots = await daemon.query(`/1.0/instances/${instance.name}/snapshots?recursion=1`);
    found[`${instance.name}/*`] = (snapshots as Record<string, unknown>[]).map((one) => ({
      ...one,
      expanded_config: 0,
    }));
  }
  return found;
}

/** Ends the daemon, and starts it without its database. */
async function loseDatabase(daemon: Daemon, how: "kill" | "terminate" = "terminate"): Promise<void> {
  await daemon[how]();
  for (const end of ["", "-wal", "-shm"]) rmSync(join(daemon.directory, `lido.db${end}`), { force: true });
  await daemon.up();
  assert.deepEqual(await daemon.query("/1.0/storage-pools"), []);
  assert.deepEqual(await daemon.query("/1.0/instances"), []);
}

async function nothingIsWrong(daemon: Daemon): Promise<void> {
  const { out } = await daemon.lido(["admin", "check", "-f", "csv"]);
  // Images are not recovered: the check reports their files and unpacked images.
  const lines = out.split("\n").filter(Boolean);
  assert.deepEqual(lines.filter((line) => !/\/images?\//.test(line)), []);
  const copies = lines.filter((line) => /^pool\/.*\/image\//.test(line));
  assert.ok(copies.every((line) => line.includes("--drop-images")), copies.join("\n"));
}

async function furnish(daemon: Daemon, source: string): Promise<void> {
  await daemon.furnish(await busyboxImage());
  mkdirSync(source);
  await daemon.ok("storage", "create", "far", "dir", `source=${source}`);
  await daemon.ok("storage", "set", "plain", "volume.snapshots.expiry", "3d");
  await daemon.ok("profile", "create", "extra");
  for (const pool of ["fast", "plain", "far"]) {
    await daemon.ok("storage", "volume", "create", pool, "data", 'user.note=a: "b"', "snapshots.schedule=@daily");
    await daemon.ok("storage", "volume", "set", pool, "data", "snapshots.expiry", "1w");
    writeFileSync(join(daemon.directory, "storage-pools", pool, "custom/default_data/file"), pool);
    await daemon.ok("storage", "volume", "snapshot", pool, "data", "before");
    await daemon.ok("storage", "volume", "create", pool, "none");
    await daemon.ok("launch", "bb", `on-${pool}`, "-s", pool, "-p", "default", "-p", "extra", "-c", "user.a=1");
    await daemon.ok("storage", "volume", "attach", pool, "data", `on-${pool}`, "/mnt");
    await daemon.ok(
      "exec",
      `on-${pool}`,
      "--",
      "sh",
      "-c",
      "echo hello > /root/mine; chown 1000:1000 /root/mine; echo x > /mnt/own",
    );
    await daemon.ok("snapshot", `on-${pool}`, "s0");
    await daemon.ok("config", "set", `on-${pool}`, "user.a", "2");
    await daemon.ok("snapshot", `on-${pool}`, "gone");
    await daemon.ok("delete", `on-${pool}/gone`);
  }
  // An isolated instance that was renamed.
  await daemon.ok("init", "bb", "alone", "-s", "plain", "-c", "security.idmap.isolated=true");
  await daemon.ok("start", "alone");
  await daemon.ok("stop", "-f", "alone");
  await daemon.ok("rename", "alone", "apart");
  await daemon.ok("stop", "-f", "on-plain");
}

async function restoreProfiles(daemon: Daemon): Promise<void> {
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=fast");
}

Deno.test("a lost database is recovered: pools, volumes and instances as they were, containers still running", async (t) => {
  await using daemon = await Daemon.start();
  const source = `${daemon.directory}.far`;
  await using _far = { [Symbol.asyncDispose]: () => succeed(["rm", "-rf", source]).then(() => {}) };
  await furnish(daemon, source);
  const before = await views(daemon);
  const pid = await daemon.ok("query", "/1.0/instances/on-fast/state");

  await t.step("by flags, while containers run: they are taken up", async () => {
    await loseDatabase(daemon);
    await daemon.fails(["admin", "recover", "--yes"], /Profile "extra" in project "default"/);
    assert.deepEqual(await daemon.query("/1.0/storage-pools"), [], "nothing was kept");
    await daemon.ok("profile", "create", "extra");
    const out = await daemon.ok("admin", "recover", "--yes");
    assert.match(out, /Container "on-fast" on pool "fast" in project "default" \(includes 1 snapshots\)/);
    assert.match(out, /\n10 recovered$/);
    await restoreProfiles(daemon);
    assert.equal(await daemon.ok("exec", "on-fast", "--", "stat", "-c", "%u %U", "/root/mine"), "1000 user");
    assert.equal(await daemon.ok("exec", "on-far", "--", "cat", "/mnt/file", "/root/mine"), "farhello");
    assert.equal(
      JSON.parse(await daemon.ok("query", "/1.0/instances/on-fast/state")).pid,
      JSON.parse(pid).pid,
      "the very container goes on",
    );
    // The root disk came from the profile, which was restored later: it is now the instances' own device.
    await nothingIsWrong(daemon);
    assert.match(await daemon.ok("admin", "recover", "--yes"), /Nothing to do/);
  });

  await t.step("the stopped one starts, and sees its files with the right owners", async () => {
    await daemon.ok("start", "on-plain", "apart");
    assert.equal(await daemon.ok("exec", "on-plain", "--", "stat", "-c", "%u", "/root/mine"), "1000");
    assert.equal(await daemon.ok("exec", "on-plain", "--", "stat", "-c", "%u", "/mnt/own"), "0");
    assert.equal(await daemon.ok("exec", "apart", "--", "stat", "-c", "%u", "/root"), "0");
    await daemon.ok("stop", "-f", "on-plain", "apart");
  });

  await t.step("all is shown as before", async () => {
    // Instances with their profiles' root disk get it back if the profiles exist before the recovery.
    await loseDatabase(daemon, "kill");
    await daemon.ok("profile", "create", "extra");
    await daemon.ok("admin", "recover", "--yes");
    await restoreProfiles(daemon);
    assert.deepEqual(await views(daemon), before);
  });

  await t.step("known pool, volumes that are not known", async () => {
    const root = join(daemon.directory, "storage-pools/plain");
    mkdirSync(join(root, "custom/default_stray"), { mode: 0o711 });
    const out = await daemon.ok("admin", "recover", "--yes");
    assert.match(out, /Volume "stray" on pool "plain".*\n {3}it has no record/);
    await daemon.ok("storage", "volume", "delete", "plain", "stray");
    await nothingIsWrong(daemon);
  });

  await t.step("in a terminal", async () => {
    await loseDatabase(daemon, "kill");
    using terminal = new Terminal([executable, "admin", "recover"], daemon.environment);
    for (const name of ["far", "fast", "plain"]) {
      await terminal.sees(new RegExp(`"${name}" .*is not known. Recover it\\? \\(yes/no\\) \\[default=yes\\]: `));
      terminal.type("\r");
    }
    await terminal.sees(/recover another storage pool\? \(yes\/no\) \[default=no\]: /);
    terminal.type("\r");
    await terminal.sees(/continue with scanning for lost volumes\? \(yes\/no\) \[default=yes\]: /);
    terminal.type("\r");
    await terminal.sees(/missing the following:\s+- Profile "extra"/);
    await daemon.ok("profile", "create", "extra");
    await restoreProfiles(daemon).catch(() => {}); // its pool does not exist yet
    terminal.type("\r");
    await terminal.sees(/those to be recovered\? \(yes\/no\) \[default=no\]: /);
    terminal.type("yes\r");
    await terminal.sees(/10 recovered/);
    assert.equal(await terminal.ended, 0);
    await nothingIsWrong(daemon);
  });
  for (const name of ["on-fast", "on-far"]) await daemon.ok("stop", "-f", name);
  await command([executable, "admin", "check", "--repair"], { env: daemon.environment });
  await t.step("an image that is imported again needs its lost copies deleted, and is told how", async () => {
    await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
    await daemon.fails(["init", "bb", "again", "-s", "plain"], /not known; see "lido admin recover --drop-images"/);
    await daemon.ok("admin", "recover", "--yes", "--drop-images");
    await daemon.ok("init", "bb", "again", "-s", "plain");
  });
  await daemon.ok("profile", "delete", "extra").catch(() => {});
});

Deno.test("what is damaged, made up or cut off is told, and keeps nothing else from being recovered", async () => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "plain", "dir");
  const root = join(daemon.directory, "storage-pools/plain");
  for (const name of ["good", "bad", "cut"]) await daemon.ok("storage", "volume", "create", "plain", name);
  const record = (name: string) => join(root, ".lido-records/custom", `default_${name}.yaml`);
  const backup = (name: string, text: string | undefined) => {
    mkdirSync(join(root, "containers", name, "rootfs"), { recursive: true });
    if (text !== undefined) writeFileSync(join(root, "containers", name, "backup.yaml"), text);
  };
  const container = (name: string, more = "") =>
    `container:\n  name: ${name}\n  architecture: x86_64\n  profiles: []\n${more}`;
  await daemon.terminate();
  writeFileSync(record("bad"), readFileSync(record("good"), "utf8").slice(0, 30) + "\n  [");
  mkdirSync(join(root, ".lido-records/open"), { recursive: true });
  writeFileSync(
    join(root, ".lido-records/open/x-1.json"),
    JSON.stringify({ kind: "volume.delete", payload: { pool: "plain", type: "custom", name: "default_cut" } }),
  );
  backup("truncated", container("truncated").slice(0, 20));
  backup("bomb", "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n" + container("bomb", "  config: {user.x: *c}\n"));
  backup("types", container("types", "  devices: [1, 2]\n"));
  backup("other", container("another"));
  backup("missing", undefined);
  backup("a_b", container("b"));
  backup("up", container("../up"));
  backup(
    "fine",
    container(
      "fine",
      "  config: {security.secureboot: true, user.x: 1}\n  devices:\n    eth0: {type: nic, name: eth0}\n",
    ) +
      "snapshots:\n- name: ../../s\n- name: fine/ghost\n",
  );
  mkdirSync(join(root, "containers-snapshots/fine/odd"), { recursive: true });
  for (const end of ["", "-wal", "-shm"]) rmSync(join(daemon.directory, `lido.db${end}`), { force: true });
  await daemon.up();

  await daemon.fails(["admin", "recover", "--yes"], /Project "a"/);
  rmSync(join(root, "containers/a_b"), { recursive: true });
  const { code, out, err } = await daemon.lido(["admin", "recover", "--yes"]);
  assert.equal(code, 1);
  assert.match(out, /2 recovered/);
  for (
    const pattern of [
      /"bad": default_bad\.yaml: /,
      /"cut": it was cut off: volume\.delete/,
      /"truncated": its backup\.yaml is that of "t"/,
      /"bomb": backup\.yaml: .*alias/i,
      /"types": backup\.yaml: container\.devices/,
      /"other": its backup\.yaml is that of "another"/,
      /"missing": it has no backup\.yaml/,
      /"up": its backup\.yaml is that of "..\/up"/,
    ]
  ) assert.match(err, pattern);
  for (
    const pattern of [
      /"security\.secureboot" is left out/,
      /device "eth0" is left out/,
      /snapshot "\.\.\/\.\.\/s": its name is not allowed/,
      /snapshot "ghost" is not on disk/,
      /snapshot "odd" is on disk but not recorded/,
    ]
  ) assert.match(out, pattern);
  const fine = await daemon.query("/1.0/instances/fine") as { config: Record<string, string>; devices: unknown };
  assert.equal(fine.config["user.x"], "1");
  assert.deepEqual(fine.devices, { root: { type: "disk", path: "/", pool: "plain" } });
  await daemon.fails(["admin", "recover", "--yes", "--pool", "p"], /Invalid pool "p"/);
  await daemon.fails(["admin", "recover", "--yes", "--pool", "p=dir,source=/etc"], /'\/etc' holds no storage pool/);
  await daemon.fails(["admin", "recover", "--yes", "--pool", "p=dir,source=/nosuch"], /'\/nosuch' doesn't exist/);
  await daemon.fails(["admin", "recover", "--yes", "--pool", "p=dir,source=" + root], /in use by storage pool "plain"/);
  await daemon.fails(["admin", "recover", "--yes", "--pool", "plain=btrfs"], /known, on driver "dir"/);
  await daemon.fails(
    ["admin", "recover", "--yes", "--pool", "p=dir,source=/a", "--pool", "p=dir,source=/b"],
    /"p" is given twice/,
  );
  assert.ok(!existsSync(join(daemon.directory, "storage-pools/p")));
  assert.ok(!existsSync("/etc/containers/.lido") && !readdirSync("/etc").includes("custom"));
  await daemon.lido(["admin", "recover", "--yes", "--force"]);
  assert.ok(await daemon.query(`${custom("plain")}/cut`), "--force takes what is there");
  for (const name of readdirSync(join(root, "containers"))) {
    if (name !== "fine") rmSync(join(root, "containers", name), { recursive: true });
  }
  rmSync(join(root, "custom/default_bad"), { recursive: true });
  await daemon.ok("delete", "fine/odd"); // known since the second recovery
  // The records of deleted volumes are deleted, too.
  assert.match(await daemon.ok("admin", "check", "--repair"), /"bad".*DONE/);
  await nothingIsWrong(daemon);
});

Deno.test("what LXD 5.0.2 made is recovered, also by its own client", async (t) => {
  await using daemon = await Daemon.start();
  const source = `${daemon.directory}.lxd`;
  await using _tree = { [Symbol.asyncDispose]: () => succeed(["rm", "-rf", source]).then(() => {}) };
  const container = join(source, "containers/d1");
  makeBusyboxRoot(join(container, "rootfs"));
  // Owners as LXD sets them on disk where the filesystem has no idmapped mounts.
  await succeed(["chown", "-hR", "100000:100000", join(container, "rootfs")]);
  writeFileSync(join(container, "backup.yaml"), readFileSync(join(fixtures, "lxd-5.0.2-backup.yaml")), { mode: 0o400 });
  mkdirSync(join(source, "custom/default_v"), { recursive: true });
  mkdirSync(join(source, "custom-snapshots/default_v/s0"), { recursive: true });
  const out = await daemon.ok("admin", "recover", "--yes", "--pool", `p-dir=dir,source=${source}`);
  assert.match(out, /Container "d1" on pool "p-dir"/);
  assert.match(out, /Volume "v" on pool "p-dir" in project "default" \(includes 1 snapshots\)/);
  assert.match(out, /2 recovered/);
  const pool = await daemon.query("/1.0/storage-pools/p-dir") as { config: unknown };
  assert.deepEqual(pool.config, { source });
  await daemon.ok("start", "d1");
  assert.equal(await daemon.ok("exec", "d1", "--", "stat", "-c", "%u:%g", "/bin/busybox"), "0:0");
  await daemon.ok("stop", "-f", "d1");

  // In Debian `lxd recover` is part of LXD's daemon, which a host need not have.
  const hasLxd = await createHost().which("lxd") !== undefined;
  await t.step({
    name: hasLxd ? "by `lxd recover`" : "by `lxd recover`: not on this host: lxd is not installed",
    ignore: !hasLxd,
    fn: async () => {
      mkdirSync(join(source, "custom/default_w"));
      const { code, out: said, err } = await command(["lxd", "recover"], {
        env: daemon.environment,
        input: "no\nyes\nyes\n",
      });
      assert.equal(code, 0, said + err);
      assert.match(said, /Volume "w" on pool "p-dir" in project "default" \(includes 0 snapshots\)/);
      assert.ok(await daemon.query(`${custom("p-dir")}/w`));
    },
  });
  await nothingIsWrong(daemon);
});
