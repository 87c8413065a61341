/** System calls that no confined tool may make, even if it has a capability for other calls (attributes of the host's own need
 * CAP_SYS_ADMIN): without them it cannot mount, leave its namespaces, load code into the kernel or communicate.
 * @see seccomp(2), linux/filter.h */
import { check, cString, libc } from "../ffi/libc.ts";

/** Numbers on x86_64 and aarch64. */
const forbidden: Readonly<Record<string, readonly [x64: number, arm64: number]>> = {
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  setns: [308, 268],
  unshare: [272, 97],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  open_tree_attr: [467, 467],
  open_by_handle_at: [304, 265],
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  // Calls made through it are not filtered.
  io_uring_setup: [425, 425],
  socket: [41, 198],
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  swapon: [167, 224],
  swapoff: [168, 225],
  reboot: [169, 142],
  acct: [163, 89],
  syslog: [103, 116],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
};

/** i386 calls on x86_64 have other numbers; x32 numbers begin here. */
const x32Bit = 0x40000000;

function program(): Uint8Array {
  const isArm = process.arch === "arm64";
  const numbers = Object.values(forbidden).map(([x64, arm64]) => isArm ? arm64 : x64);
  const LD_W_ABS = 0x20, JEQ = 0x15, JGE = 0x35, RET = 0x06;
  const ALLOW = 0x7fff0000, KILL_PROCESS = 0x80000000, ERRNO = 0x00050000, EPERM = 1;
  const nrOffset = 0, archOffset = 4;
  const arch = isArm ? 0xc00000b7 : 0xc000003e;
  // Jumps are relative to the next instruction.
  const checks = numbers.map((number, index) => [JEQ, numbers.length - index, 0, number] as const);
  const instructions: (readonly [code: number, jt: number, jf: number, k: number])[] = [
    [LD_W_ABS, 0, 0, archOffset],
    [JEQ, 1, 0, arch],
    [RET, 0, 0, KILL_PROCESS],
    [LD_W_ABS, 0, 0, nrOffset],
    [JGE, numbers.length + 1, 0, x32Bit],
    ...checks,
    [RET, 0, 0, ALLOW],
    [RET, 0, 0, ERRNO | EPERM],
  ];
  const bytes = new DataView(new ArrayBuffer(instructions.length * 8));
  instructions.forEach(([code, jt, jf, k], index) => {
    bytes.setUint16(index * 8, code, true);
    bytes.setUint8(index * 8 + 2, jt);
    bytes.setUint8(index * 8 + 3, jf);
    bytes.setUint32(index * 8 + 4, k, true);
  });
  return new Uint8Array(bytes.buffer);
}

let written: number | undefined;

/** @returns A descriptor for reading the filter from its beginning; the caller closes it. */
export function openFilter(): number {
  if (written === undefined) {
    const MFD_CLOEXEC = 1;
    written = check("create a file in memory", libc.memfd_create(cString("lido-filter"), MFD_CLOEXEC));
    const bytes = program();
    check("write a filter", libc.write(written, bytes, bytes.length));
  }
  // Opened again: descriptors that share a position can be read only once.
  const O_RDONLY_CLOEXEC = 0x80000, own = `/proc/self/fd/${written}`;
  return check(`open "${own}"`, libc.open(cString(own), O_RDONLY_CLOEXEC, 0));
}
