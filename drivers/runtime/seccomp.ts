/** The system calls that a container is refused: LXD's default policy, for every instruction set that the machine runs.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp */

/** libseccomp's names of what a kernel can run, by Node's name of its architecture. A call from an architecture that the filter does
 * not know kills its process: a 32-bit program would die by SIGSYS. @see seccomp_arch_add(3) */
const architectures: Readonly<Record<string, readonly string[]>> = {
  x64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  arm64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
  ppc64: ["SCMP_ARCH_PPC64LE"],
  riscv64: ["SCMP_ARCH_RISCV64"],
  s390x: ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
};

const EACCES = 13, ENOSYS = 38;
const MNT_FORCE = 1;

/** @param architecture As `process.arch`. */
export function seccompPolicy(architecture: string = process.arch): object {
  return {
    defaultAction: "SCMP_ACT_ALLOW",
    architectures: architectures[architecture] ?? [],
    syscalls: [
      {
        // What loads code into the kernel or opens files past the root. "Not implemented" makes programs take another way, where
        // "not permitted" makes them fail. LXD's list, and the newer form of its first call.
        names: [
          ...["kexec_load", "kexec_file_load", "open_by_handle_at"],
          ...["init_module", "finit_module", "delete_module"],
        ],
        action: "SCMP_ACT_ERRNO",
        errnoRet: ENOSYS,
      },
      {
        // umount -f aborts the requests of a filesystem that others may have mounted, too.
        names: ["umount2"],
        action: "SCMP_ACT_ERRNO",
        errnoRet: EACCES,
        args: [{ index: 1, value: MNT_FORCE, valueTwo: MNT_FORCE, op: "SCMP_CMP_MASKED_EQ" }],
      },
    ],
  };
}
