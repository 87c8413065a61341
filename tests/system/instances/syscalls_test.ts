/** `security.syscalls.*`: the system calls that a container is refused. */
import assert from "node:assert/strict";
import { Daemon } from "../../support/daemon.ts";
import { busyboxImage } from "../../support/image.ts";

const SIGSYS = 31;

Deno.test("system calls are refused as the settings say, with LXD's names and texts", async (t) => {
  await using daemon = await Daemon.start();
  await daemon.ok("storage", "create", "plain", "dir");
  await daemon.ok("profile", "device", "add", "default", "root", "disk", "path=/", "pool=plain");
  await daemon.ok("image", "import", await busyboxImage(), "--alias", "bb");
  await daemon.ok("launch", "bb", "c1");
  const key = (name: string) => `security.syscalls.${name}`;
  const run = (...argv: string[]) => daemon.lido(["exec", "c1", "--", ...argv]);
  const set = async (config: Record<string, string>) => {
    const { code, out, err } = await daemon.lido([
      ...["config", "set", "c1"],
      ...Object.entries(config).map(([name, value]) => `${key(name)}=${value}`),
    ]);
    assert.equal(code, 0, err);
    assert.match(out + err, /security\.syscalls\..*takes effect when "c1" is restarted/);
    await daemon.ok("restart", "-f", "c1");
  };

  await t.step("calls of a list fail or kill, others are made; the default list stays", async () => {
    await set({
      deny: "# of files\nmkdir errno 28\nmkdirat errno 28\n\n[all]\nsethostname\nlseek kill [0,9999,SCMP_CMP_EQ]",
    });
    const refused = await run("mkdir", "/x");
    assert.match(refused.err, /No space left on device/);
    assert.equal((await run("hostname", "other")).code, 128 + SIGSYS);
    assert.match((await run("umount", "-f", "/nosuch")).err, /Permission denied/);
    await daemon.ok("exec", "c1", "--", "touch", "/x");
  });

  await t.step("a rule of one's own counts instead of the default one, which can be left out", async () => {
    await set({ deny: "umount2 errno 28" });
    assert.match((await run("umount", "-f", "/nosuch")).err, /No space left on device/);
    await set({ deny: "", blacklist: "mkdir errno 28\nmkdirat errno 28", blacklist_default: "false" });
    assert.match((await run("mkdir", "/y")).err, /No space left on device/);
    assert.match((await run("umount", "-f", "/nosuch")).err, /Invalid argument|No such file/);
    await set({ blacklist: "reject_force_umount" });
    assert.match((await run("umount", "-f", "/nosuch")).err, /Permission denied/);
    await set({ blacklist: "", blacklist_default: "", deny_compat: "true" });
    await daemon.ok("exec", "c1", "--", "mkdir", "/y");
    assert.match((await run("umount", "-f", "/nosuch")).err, /Permission denied/);
  });

  await t.step("an init that may not make its calls does not start, nor one with a name that is none", async () => {
    await set({ deny_compat: "" });
    await daemon.ok("stop", "-f", "c1");
    await daemon.ok("config", "set", "c1", `${key("allow")}=read`);
    await daemon.fails(["start", "c1"], /Failed to start/);
    await daemon.ok("config", "set", "c1", `${key("allow")}=`, `${key("deny")}=mkdirr`);
    await daemon.fails(
      ["start", "c1"],
      /Failed to start "c1": the host.s libseccomp knows no system call "mkdirr" \(security\.syscalls\.allow, /,
    );
    await daemon.ok("config", "set", "c1", `${key("deny")}=`);
    await daemon.ok("start", "c1");
  });

  await t.step("what is refused says what is allowed", async () => {
    const set = (...pairs: string[]) => ["config", "set", "c1", ...pairs.map((pair) => key(pair))];
    await daemon.fails(
      set("allow=read", "deny=mkdir"),
      /security\.syscalls\.allow is mutually exclusive with security\.syscalls\.deny\*/,
    );
    await daemon.fails(set("whitelist=read", "deny_compat=true"), /allow is mutually exclusive with/);
    await daemon.fails(set("deny=mkdir errno"), /Invalid system call "mkdir errno": a name, then "errno NUMBER"/);
    await daemon.fails(set("deny=mkdir errno 9999"), /Invalid system call "mkdir errno 9999"/);
    await daemon.fails(set("deny=mkdir [9,1,SCMP_CMP_EQ]"), /Invalid system call/);
    await daemon.fails(set("deny=mkdir [0,1,SCMP_CMP_MASKED_EQ]"), /Invalid system call/);
    await daemon.fails(set("deny=[x86]"), /rules for one instruction set are not supported/);
    await daemon.fails(set("deny_default=maybe"), /Invalid value for a boolean "maybe"/);
    await daemon.fails(set("intercept.mknod=true"), /lido intercepts no system calls: only false is allowed/);
    await daemon.ok(...set("intercept.mknod=false"));
    // A profile may have one of them: the conflict arises only in an instance that has both.
    await daemon.ok("profile", "create", "strict");
    await daemon.ok("profile", "set", "strict", `${key("allow")}=read`);
    await daemon.ok("init", "bb", "c2", "-p", "default", "-p", "strict", "-c", `${key("deny")}=mkdir`);
    await daemon.fails(["start", "c2"], /allow is mutually exclusive with/);
    await daemon.ok("delete", "c2");
    await daemon.ok("profile", "delete", "strict");
  });
});
