import { LidoError, messageOf } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { ConfigKey } from "../../drivers/storage/driver.ts";
import type { SyscallPolicy } from "../../drivers/runtime/syscall_list.ts";
import { parseSyscalls } from "../../drivers/runtime/syscall_list.ts";
import { isTrue } from "./words.ts";

/** The settings `security.syscalls.*`, with LXD's names, defaults and error messages. */

const prefix = "security.syscalls.";

/** Newer names by the older ones, which LXD 5.0 still accepts. */
const olderNames: Readonly<Record<string, string>> = {
  whitelist: "allow",
  blacklist: "deny",
  blacklist_default: "deny_default",
  blacklist_compat: "deny_compat",
};

/** System calls that LXD intercepts and handles in user space, by seccomp notifications. */
const interceptions = [
  ...["bpf", "bpf.devices", "mknod", "mount", "mount.allowed", "mount.fuse", "mount.shift", "sched_setscheduler"],
  ...["setxattr", "sysinfo"],
].map((name) => `${prefix}intercept.${name}`);

type Check = ConfigKey["check"];

const list: Check = (value) => {
  try {
    parseSyscalls(value);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
};

/** @param boolean Checks a value that is true or false. */
export function syscallKeys(boolean: Check): Readonly<Record<string, ConfigKey>> {
  const keys: Readonly<Record<string, ConfigKey>> = {
    allow: {
      check: list,
      effect: "next start",
      help: "System calls that are allowed, one a line; all others are refused. Not together with the `deny` keys",
    },
    deny: { check: list, effect: "next start", help: "System calls that are refused, one a line" },
    deny_default: {
      check: boolean,
      effect: "next start",
      default: "true",
      help: "Whether the system calls that endanger the host are refused",
    },
    deny_compat: {
      check: boolean,
      effect: "next start",
      default: "false",
      help: "Whether the system calls of 32-bit programs are refused (x86_64)",
    },
  };
  const older = Object.entries(olderNames).map(([old, name]) =>
    [old, { ...keys[name]!, help: `Older name of \`${prefix}${name}\`` }] as const
  );
  return {
    ...Object.fromEntries([...Object.entries(keys), ...older].map(([name, key]) => [prefix + name, key])),
    ...Object.fromEntries(interceptions.map((key) => [key, {
      check: noInterception,
      default: "false",
      values: ["false"],
      effect: "next start",
      help: "For LXD's profiles and backups: lido intercepts no system calls, and only false is allowed",
    }])),
  };
}

/** Allows `false`: it is LXD's default, and may be in LXD's backups and profiles. */
const noInterception: Check = (value) =>
  value === "false" ? undefined : "lido intercepts no system calls: only false is allowed";

/** @throws {LidoError} bad_request for settings that exclude each other. */
export function checkSyscalls(config: Config): void {
  const of = (name: string) => config[prefix + name] || older(config, name);
  const isDenying = of("deny") !== undefined || isTrue(of("deny_default")) || isTrue(of("deny_compat"));
  if (of("allow") === undefined || !isDenying) return;
  throw new LidoError("bad_request", `${prefix}allow is mutually exclusive with ${prefix}deny*`);
}

/** @param config Expanded. @throws {LidoError} bad_request for settings of profiles that exclude each other. */
export function syscallPolicy(config: Config): SyscallPolicy {
  checkSyscalls(config);
  const of = (name: string) => config[prefix + name] || older(config, name);
  const [allow, deny, byDefault] = [of("allow"), of("deny"), of("deny_default")];
  return {
    ...(allow === undefined ? {} : { allow: parseSyscalls(allow) }),
    ...(deny === undefined ? {} : { deny: parseSyscalls(deny) }),
    denyDefault: byDefault === undefined || isTrue(byDefault),
    denyCompat: isTrue(of("deny_compat")),
  };
}

function older(config: Config, name: string): string | undefined {
  const old = Object.keys(olderNames).find((key) => olderNames[key] === name);
  return (old && config[prefix + old]) || undefined;
}
