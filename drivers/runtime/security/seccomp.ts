/** The system calls that a container is refused: LXD's default policy with a few additions, for every instruction set that the machine runs, and the
 * container's settings.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp */
import {
  rejectForceUmount,
  type SyscallAction,
  type SyscallCondition,
  type SyscallPolicy,
  type SyscallRule,
} from "../syscall_list.ts";

/** libseccomp's names of the instruction sets that a kernel can run, by Node's name of its architecture. A call of an architecture that the filter
 * does not know kills its process: a 32-bit program would die by SIGSYS. @see seccomp_arch_add(3) */
const architectures: Readonly<Record<string, readonly string[]>> = {
  x64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  arm64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
  ppc64: ["SCMP_ARCH_PPC64LE"],
  riscv64: ["SCMP_ARCH_RISCV64"],
  s390x: ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
};
/** An architecture whose calls use the compat entries of another. */
const compatArchitecture = "SCMP_ARCH_X32";

const EPERM = 1, EACCES = 13, ENOSYS = 38;
const MNT_FORCE = 1;

/** Calls that load code into the kernel or open files outside the root. ENOSYS makes programs choose another way, where EPERM makes them fail. LXD's
 * list, and the newer form of its first call. */
const defaultRules: readonly SyscallRule[] = [
  ...["kexec_load", "kexec_file_load", "open_by_handle_at"],
  ...["init_module", "finit_module", "delete_module"],
].map((name) => ({ name, action: { kind: "errno", errno: ENOSYS }, conditions: [] }));

/** A privileged container's root may open any BPF program, map and link of the host by its number, including the program that confines its devices on
 * cgroup v2, and could then detach or replace it. The container has descriptors of its own BPF objects; runc tolerates this refusal.
 * @see bpf(2), cgroup_bpf_detach() in kernel/bpf/cgroup.c */
const refuseBpfByNumber: readonly SyscallRule[] = [
  ["BPF_PROG_GET_FD_BY_ID", 13],
  ["BPF_MAP_GET_FD_BY_ID", 14],
  ["BPF_LINK_GET_FD_BY_ID", 30],
].map(([, command]) => ({
  name: "bpf",
  action: { kind: "errno", errno: EPERM },
  // The kernel uses the lower half of the register.
  conditions: [{ index: 0, value: Number(command), mask: 0xffff_ffff, operator: "SCMP_CMP_MASKED_EQ" }],
}));

/** umount -f aborts the requests of a filesystem that may be mounted elsewhere, too. */
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
    // libseccomp refuses a rule whose action is the default one.
    syscalls: list.map((rule) => ({ ...rule, action: rule.action ?? ofList }))
      .filter(({ action }) => action.kind !== byDefault.kind)
      .map(({ name, action, conditions }) => ({
        names: [name],
        ...ociAction(action),
        ...(conditions.length > 0 ? { args: conditions.map(ociCondition) } : {}),
      })),
  };
}

/** @returns Whether the policy has names written by a user: then a name that the host does not know is an error. */
export function hasOwnNames({ allow, deny }: SyscallPolicy): boolean {
  return (allow?.length ?? 0) + (deny?.length ?? 0) > 0;
}

/** A user's rule for a call replaces the default one. */
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
