/** x86-64 programs of some hundred bytes that make one system call and exit with its errno (0 on success). */

/** 64-bit program. @param nr May have x32's bit. @param args First argument, of up to 53 bits, and second argument. */
export function program64(nr: number, args: readonly [number, number] = [0, 0]): Uint8Array {
  const [low, high] = [args[0] % 2 ** 32, Math.floor(args[0] / 2 ** 32)];
  return elf(
    64,
    // mov eax,nr; mov rdi,a; mov esi,b; xor edx,edx; xor r10d,r10d; syscall; neg eax; mov edi,eax; mov eax,60; syscall
    [0xb8, ...u32(nr), 0x48, 0xbf, ...u32(low), ...u32(high), 0xbe, ...u32(args[1])],
    [0x31, 0xd2, 0x45, 0x31, 0xd2, 0x0f, 0x05],
    [0xf7, 0xd8, 0x89, 0xc7, 0xb8, ...u32(60), 0x0f, 0x05],
  );
}

/** 32-bit program, with i386's numbers. */
export function program32(nr: number, args: readonly [number, number] = [0, 0]): Uint8Array {
  return elf(
    32,
    // mov eax,nr; mov ebx,a; mov ecx,b; xor edx,edx; int 0x80; neg eax; mov ebx,eax; mov eax,1; int 0x80
    [0xb8, ...u32(nr), 0xbb, ...u32(args[0]), 0xb9, ...u32(args[1]), 0x31, 0xd2, 0xcd, 0x80],
    [0xf7, 0xd8, 0x89, 0xc3, 0xb8, ...u32(1), 0xcd, 0x80],
  );
}

/** x86-64 program that receives a signal as systemd does, and no other way: it blocks the signal, reads it from a signalfd, and exits with 0. */
export function signalReader64(signal: number): Uint8Array {
  const SYS_read = 0, SYS_rt_sigprocmask = 14, SYS_exit = 60, SYS_signalfd4 = 289;
  const bit = signal - 1;
  const setMask = [0, 32].flatMap((shift) => u32(bit >= shift && bit < shift + 32 ? (1 << (bit - shift)) >>> 0 : 0));
  const call = (nr: number) => [0xb8, ...u32(nr), 0x0f, 0x05]; // mov eax,nr; syscall
  return elf(
    64,
    [0x48, 0xb8, ...setMask, 0x50], // mov rax,mask; push rax
    // SIG_BLOCK: xor edi,edi; mov rsi,rsp; xor edx,edx; mov r10d,8
    [0x31, 0xff, 0x48, 0x89, 0xe6, 0x31, 0xd2, 0x41, 0xba, ...u32(8)],
    call(SYS_rt_sigprocmask),
    // mov edi,-1; mov rsi,rsp; mov edx,8; xor r10d,r10d
    [0xbf, ...u32(-1), 0x48, 0x89, 0xe6, 0xba, ...u32(8), 0x45, 0x31, 0xd2],
    call(SYS_signalfd4),
    // mov edi,eax; sub rsp,128; mov rsi,rsp; mov edx,128
    [0x89, 0xc7, 0x48, 0x81, 0xec, ...u32(128), 0x48, 0x89, 0xe6, 0xba, ...u32(128)],
    call(SYS_read),
    [0x31, 0xff], // xor edi,edi
    call(SYS_exit),
  );
}

const base = 0x40_0000;

/** Writes an executable with one segment that holds the headers and the code. @see elf(5) */
function elf(bits: 32 | 64, ...code: readonly number[][]): Uint8Array {
  const is64 = bits === 64, headers = is64 ? 64 + 56 : 52 + 32;
  const word = is64 ? u64 : u32;
  const body = code.flat(), size = headers + body.length;
  const identity = [0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  const machine = is64 ? 62 : 3;
  const sizes = is64 ? [64, 56, 1] : [52, 32, 1];
  const readExecute = 5, load = 1;
  return Uint8Array.from([
    ...identity,
    ...u16(2),
    ...u16(machine),
    ...u32(1),
    ...word(base + headers),
    ...word(is64 ? 64 : 52),
    ...word(0),
    ...u32(0),
    ...[...sizes, 0, 0, 0].flatMap(u16),
    ...u32(load),
    ...(is64 ? u32(readExecute) : []),
    ...word(0),
    ...word(base),
    ...word(base),
    ...word(size),
    ...word(size),
    ...(is64 ? [] : u32(readExecute)),
    ...word(0x1000),
    ...body,
  ]);
}

function u16(value: number): number[] {
  return [value & 0xff, value >> 8];
}

function u32(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
}

function u64(value: number): number[] {
  return [...u32(value), 0, 0, 0, 0];
}
