import { containerCapabilities } from "./security/capabilities.ts";
import { type MountSources, ociMounts, ociNestingHooks, readonlySettings } from "./mounts/mounts.ts";
import { ociResources } from "./cgroups/resources.ts";
import type { IdRange } from "../host/id_map.ts";
import type { CommandSpec, ContainerSpec } from "./runtime.ts";
import { hasOwnNames, seccompPolicy } from "./security/seccomp.ts";

/** The OCI configuration of a system container: its own init and cgroup namespace, with what LXC gives a container and nothing more.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md */

/** @param spec Its mounts as the runtime prepared them: sources are mount points in the runtime's mount namespace. */
export function ociConfig(
  spec: ContainerSpec,
  options: MountSources & { cgroupsPath: string; apparmorLabel: string | undefined },
): object {
  const privileged = spec.idmap === undefined;
  return {
    ociVersion: "1.0.2",
    process: {
      // Its stdio is the console, but without a controlling terminal: the getty or shell that init starts there takes it as its own.
      terminal: false,
      ...identity({ uid: 0, gid: 0 }, privileged),
      args: spec.init ?? ["/sbin/init"],
      env: variables({
        PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ...spec.environment,
        container: "lxc",
      }),
      cwd: "/",
      ...apparmor(options.apparmorLabel),
    },
    root: { path: options.rootfs },
    hostname: spec.name,
    // By default crun skips a name that the host's libseccomp does not know, so the call would be allowed.
    ...(spec.syscalls && hasOwnNames(spec.syscalls)
      ? { annotations: { "run.oci.seccomp_fail_unknown_syscall": "1" } }
      : {}),
    mounts: ociMounts(spec, options),
    ...(spec.nesting ? { hooks: { createContainer: ociNestingHooks(options.rootfs) } } : {}),
    linux: {
      ...(spec.idmap ? { uidMappings: mappings(spec.idmap.uid), gidMappings: mappings(spec.idmap.gid) } : {}),
      namespaces: ["pid", "network", "ipc", "uts", "mount", "cgroup", ...(privileged ? [] : ["user"])].map((type) => ({
        type,
      })),
      cgroupsPath: options.cgroupsPath,
      resources: ociResources(spec, options.layout),
      seccomp: seccompPolicy(spec.syscalls),
      // As in LXC, mounts are shared within the container, in peer groups of their own, so that services with a mount namespace see later
      // mounts. crun applies this after it has entered the container's root and made everything private.
      rootfsPropagation: "rshared",
      ...(privileged
        ? {
          maskedPaths: ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
          readonlyPaths: ["/proc/sysrq-trigger", "/proc/irq", "/proc/bus", ...readonlySettings],
        }
        : {}),
    },
  };
}

/** `process.json` of a command that enters the container. @see crun(1), exec --process */
export function ociProcess(
  command: CommandSpec,
  options: { privileged: boolean; terminal?: { width: number; height: number }; apparmorLabel: string | undefined },
): object {
  return {
    terminal: options.terminal !== undefined,
    ...(options.terminal ? { consoleSize: options.terminal } : {}),
    ...identity(command, options.privileged),
    args: command.argv,
    // For systemctl and others that ask whether they are in a container; the init has it too.
    env: variables({ container: "lxc", ...command.environment }),
    cwd: command.cwd,
    ...apparmor(options.apparmorLabel),
  };
}

function apparmor(label: string | undefined): object {
  return label === undefined ? {} : { apparmorProfile: label };
}

function identity(command: { uid: number; gid: number; groups?: readonly number[] }, privileged: boolean): object {
  const all = containerCapabilities(privileged);
  const held = command.uid === 0 ? all : [];
  return {
    user: { uid: command.uid, gid: command.gid, additionalGids: command.groups ?? [] },
    capabilities: { bounding: all, effective: held, permitted: held, inheritable: [], ambient: [] },
    noNewPrivileges: false,
  };
}

function variables(environment: Readonly<Record<string, string>>): string[] {
  return Object.entries(environment).map(([name, value]) => `${name}=${value}`);
}

function mappings(ranges: readonly IdRange[]): object[] {
  return ranges.map(({ container, host, count }) => ({ containerID: container, hostID: host, size: count }));
}
