/** The system calls that a container is refused: LXD's default policy and a little more, for every instruction set that the machine runs, and what its settings say.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp */
import {
  rejectForceUmount,
  type SyscallAction,
  type SyscallCondition,
  type SyscallPolicy,
  type SyscallRule,
} from "../syscall_list.ts";

/** libseccomp's names of what a kernel can run, by Node's name of its architecture. A call from an architecture that the filter does
 * not know kills its process: a 32-bit program would die by SIGSYS. @see seccomp_arch_add(3) */
const architectures: Readonly<Record<string, readonly string[]>> = {
  x64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  arm64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
  ppc64: ["SCMP_ARCH_PPC64LE"],
  riscv64: ["SCMP_ARCH_RISCV64"],
  s390x: ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
};
/** Those whose calls come in by the compat entries of another's. */
const compatArchitecture = "SCMP_ARCH_X32";

const EPERM = 1, EACCES = 13, ENOSYS = 38;
const MNT_FORCE = 1;

/** What loads code into the kernel or opens files past the root. "Not implemented" makes programs take another way, where "not permitted" makes them
 * fail. LXD's list, and the newer form of its first call. */
const defaultRules: readonly SyscallRule[] = [
  ...["kexec_load", "kexec_file_load", "open_by_handle_at"],
  ...["init_module", "finit_module", "delete_module"],
].map((name) => ({ name, action: { kind: "errno", errno: ENOSYS }, conditions: [] }));

/** A privileged container's root may ask for any BPF program, map and link of the host by its number, the program that confines its devices on cgroup v2
 * among them: with that it could detach or replace it. Those that it makes have descriptors; runc passes over a program that it is refused.
 * @see bpf(2), cgroup_bpf_detach() in kernel/bpf/cgroup.c */
const refuseBpfByNumber: readonly SyscallRule[] = [
  ["BPF_PROG_GET_FD_BY_ID", 13],
  ["BPF_MAP_GET_FD_BY_ID", 14],
  ["BPF_LINK_GET_FD_BY_ID", 30],
].map(([, command]) => ({
  name: "bpf",
  action: { kind: "errno", errno: EPERM },
  // The kernel takes the lower half of the register.
  conditions: [{ index: 0, value: Number(command), mask: 0xffff_ffff, operator: "SCMP_CMP_MASKED_EQ" }],
}));

/** umount -f aborts the requests of a filesystem that others may have mounted, too. */
const refuseForceUmount: SyscallRule = {
  name: "umount2",
  action: { kind: "errno", errno: EACCES },
  conditions: [{ index: 1, value: MNT_FORCE, mask: MNT_FORCE, operator: "SCMP_CMP_MASKED_EQ" }],
};

/** @param architecture As `process.arch`. */
export function seccompPolicy(policy: SyscallPolicy = {}, architecture: string = process.arch): object {
  const known = architectures[architecture] ?? [];
  const list = policy.allow ?? denied(policy);
  const byDefault: SyscallAction = { kind: policy.allow ? "kill" : "allow" };
  const ofList: SyscallAction = { kind: policy.allow ? "allow" : "kill" };
  return {
    defaultAction: ociAction(byDefault).action,
    architectures: policy.denyCompat ? known.filter((name) => name !== compatArchitecture) : known,
    // A rule for what is done anyway is an error of libseccomp's.
    syscalls: list.map((rule) => ({ ...rule, action: rule.action ?? ofList }))
      .filter(({ action }) => action.kind !== byDefault.kind)
      .map(({ name, action, conditions }) => ({
        names: [name],
        ...ociAction(action),
        ...(conditions.length > 0 ? { args: conditions.map(ociCondition) } : {}),
      })),
  };
}

/** @returns Whether the policy has names that a user wrote: one that the host does not know is an error then. */
export function hasOwnNames({ allow, deny }: SyscallPolicy): boolean {
  return (allow?.length ?? 0) + (deny?.length ?? 0) > 0;
}

/** The user's own rule for a call counts instead of the default one. */
function denied({ deny = [], denyDefault = true }: SyscallPolicy): readonly SyscallRule[] {
  const own = deny.map((rule) => rule.name === rejectForceUmount ? refuseForceUmount : rule);
  const isOwn = (rule: SyscallRule) => own.some(({ name }) => name === rule.name);
  const standard = denyDefault ? [...defaultRules, ...refuseBpfByNumber, refuseForceUmount] : [];
  return [...standard.filter((rule) => !isOwn(rule)), ...own];
}

function ociAction(action: SyscallAction): { action: string; errnoRet?: number } {
  if (action.kind === "errno") return { action: "SCMP_ACT_ERRNO", errnoRet: action.errno };
  return { action: `SCMP_ACT_${action.kind.toUpperCase()}` };
}

function ociCondition({ index, value, operator, mask }: SyscallCondition): object {
  if (mask === undefined) return { index, value, op: operator };
  return { index, value: mask, valueTwo: value, op: operator };
}
