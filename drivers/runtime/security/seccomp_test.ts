import assert from "node:assert/strict";
import { seccompPolicy } from "./seccomp.ts";
import { parseSyscalls } from "../syscall_list.ts";

interface Policy {
  defaultAction: string;
  architectures: string[];
  syscalls: { names: string[]; action: string; errnoRet?: number; args?: object[] }[];
}

const policy = (...args: Parameters<typeof seccompPolicy>) => seccompPolicy(...args) as Policy;

Deno.test("the default policy refuses what LXD's does, and BPF objects by their number", () => {
  const { defaultAction, architectures, syscalls } = policy({}, "x64");
  assert.equal(defaultAction, "SCMP_ACT_ALLOW");
  assert.deepEqual(architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
  assert.deepEqual(syscalls.at(-1), {
    names: ["umount2"],
    action: "SCMP_ACT_ERRNO",
    errnoRet: 13,
    args: [{ index: 1, value: 1, valueTwo: 1, op: "SCMP_CMP_MASKED_EQ" }],
  });
  assert.deepEqual(syscalls.at(-2), {
    names: ["bpf"],
    action: "SCMP_ACT_ERRNO",
    errnoRet: 1,
    args: [{ index: 0, value: 0xffff_ffff, valueTwo: 30, op: "SCMP_CMP_MASKED_EQ" }],
  });
  const names = syscalls.filter(({ args }) => !args).map(({ names, errnoRet }) => `${names} ${errnoRet}`);
  assert.ok(names.includes("open_by_handle_at 38"), names.join());
  assert.equal(names.length, 6);
});

Deno.test("an allowed list is all there is: nothing is made that is not in it, and no rule says what is so anyway", () => {
  const allow = parseSyscalls(
    "read\nwrite errno 5\n  # no more\nioctl [1,0x5413,SCMP_CMP_EQ] [0,3,SCMP_CMP_LT]\nfork kill",
  );
  const { defaultAction, syscalls } = policy({ allow, deny: parseSyscalls("read") }, "x64");
  assert.equal(defaultAction, "SCMP_ACT_KILL");
  assert.deepEqual(syscalls, [
    { names: ["read"], action: "SCMP_ACT_ALLOW" },
    { names: ["write"], action: "SCMP_ACT_ERRNO", errnoRet: 5 },
    {
      names: ["ioctl"],
      action: "SCMP_ACT_ALLOW",
      args: [{ index: 1, value: 0x5413, op: "SCMP_CMP_EQ" }, { index: 0, value: 3, op: "SCMP_CMP_LT" }],
    },
  ]);
});

Deno.test("a list is bounded, and x32 goes where it is asked for", () => {
  assert.throws(() => parseSyscalls("read\n".repeat(1001)), /at most 1000 lines are allowed/);
  assert.deepEqual(policy({ denyCompat: true }, "x64").architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
  assert.deepEqual(policy({ denyCompat: true }, "arm64").architectures, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
});
