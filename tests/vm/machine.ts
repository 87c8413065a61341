/** The test guest as a process: booted on the caller's disks, its output followed, ended when the caller says.
 *
 * Two emulators run the same root filesystem. *uml*, user-mode Linux, is a kernel as a process: it boots in two seconds, has one CPU,
 * device-mapper, no ZFS, and takes up to a third of a second to start a program where page faults are slow. *qemu* emulates every instruction
 * (without KVM: on hosts that are guests themselves KVM fails late and unclearly): six to nine times slower, two CPUs, all modules with ZFS. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  type FSWatcher,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  watch,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { projectRoot } from "../support/daemon.ts";

export type Kind = "uml" | "qemu";

export interface Boot {
  readonly kind: Kind;
  /** Directory that `prepare.sh` made. */
  readonly guest: string;
  /** Run by bash as root. $D1, $D2, ... are the devices of `disks`, /src is the clone, read-only; files written to /out appear in `Machine.out`. */
  readonly command: string;
  /** Files that are the guest's disks. They outlive it, so that the next boot sees their content. */
  readonly disks: readonly string[];
  readonly memoryMiB?: number;
  /** The caller's directory for /out; a temporary one of this machine when absent. */
  readonly out?: string;
  readonly onOutput?: (text: string) => void;
}

/** Emulators and disks outlive the process that made them unless they are disposed of, also at a signal. */
const ours = new Set<AsyncDisposable>();
for (const [signal, number] of [["SIGINT", 2], ["SIGTERM", 15], ["SIGHUP", 1]] as const) {
  process.once(signal, async () => {
    // Reverse order: machines are created after the disks that they run on.
    for (const one of [...ours].reverse()) await one[Symbol.asyncDispose]();
    process.exit(128 + number);
  });
}

/** A temporary directory for empty sparse disks. */
export class Disks implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "lido-disks-"));

  constructor() {
    ours.add(this);
  }

  /** Adds a disk. @returns Its path. */
  add(sizeGiB: number): string {
    const path = join(this.directory, `disk${readdirSync(this.directory).length + 1}`);
    writeFileSync(path, "");
    truncateSync(path, sizeGiB * 2 ** 30);
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    ours.delete(this);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export class Machine implements AsyncDisposable {
  /** Shared with the guest, as /out. */
  readonly out: string;
  readonly #directory: string;
  readonly #children: ChildProcess[] = [];
  readonly #onOutput: (text: string) => void;
  /** Settles with the command's exit code, or undefined when the guest ended without one. */
  readonly ended: Promise<number | undefined>;
  readonly #watcher: FSWatcher;
  #waiting: { path: string; resolve: () => void }[] = [];
  #read = 0;

  constructor(boot: Boot) {
    this.#directory = mkdtempSync(join(tmpdir(), "lido-vm-"));
    this.out = boot.out ?? join(this.#directory, "out");
    mkdirSync(this.out, { recursive: true });
    rmSync(join(this.out, "code"), { force: true });
    this.#onOutput = boot.onOutput ?? (() => {});
    writeFileSync(join(this.out, "log"), "");
    const letters = boot.kind === "uml" ? "bcdefgh" : "abcdefgh";
    const device = boot.kind === "uml" ? "/dev/ubd" : "/dev/vd";
    const names = boot.disks.map((_, index) => `export D${index + 1}=${device}${letters[index]}\n`);
    writeFileSync(join(this.out, "command"), `${names.join("")}${boot.command}\n`);
    this.#watcher = watch(this.out, () => this.#look());
    ours.add(this);
    this.ended = this.#run(boot);
  }

  /** All output of the command. */
  get output(): string {
    return readFileSync(join(this.out, "log"), "utf8");
  }

  /** Output of the kernel and the emulator, for a guest that ended without a result. */
  get console(): string {
    return ["console", "emulator"].map((name) => join(this.#directory, name)).filter(existsSync)
      .map((path) => readFileSync(path, "utf8").split("\n").slice(-30).join("\n")).join("\n");
  }

  async #run(boot: Boot): Promise<number | undefined> {
    try {
      const emulator = boot.kind === "uml" ? this.#startUml(boot) : await this.#startQemu(boot);
      await new Promise<void>((resolve, reject) => emulator.on("exit", () => resolve()).on("error", reject));
      this.#look();
    } finally {
      this.#watcher.close();
      this.kill();
    }
    const code = join(this.out, "code");
    return existsSync(code) ? Number(readFileSync(code, "utf8")) : undefined;
  }

  /** Resolves when the guest has made this file in `out`. */
  made(name: string): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push({ path: join(this.out, name), resolve });
      this.#look();
    });
  }

  /** Called when inotify reports a change: a process of this host makes the writes of the guest into `out`. */
  #look(): void {
    this.#waiting = this.#waiting.filter(({ path, resolve }) => {
      if (!existsSync(path)) return true;
      resolve();
      return false;
    });
    const bytes = readFileSync(join(this.out, "log"));
    if (bytes.length === this.#read) return;
    this.#onOutput(bytes.subarray(this.#read).toString());
    this.#read = bytes.length;
  }

  #start(argv: readonly string[], log: string): ChildProcess {
    const file = openSync(join(this.#directory, log), "a");
    // A process group of its own: user-mode Linux has a process for each of the guest's, and all of them must end together.
    const child = spawn(argv[0]!, argv.slice(1), {
      stdio: ["ignore", file, file],
      detached: true,
      cwd: this.#directory,
    });
    closeSync(file);
    this.#children.push(child);
    return child;
  }

  #startUml({ guest, disks, memoryMiB }: Boot): ChildProcess {
    const letters = "bcdefgh";
    return this.#start([
      join(guest, "linux.uml"),
      `mem=${memoryMiB ?? 1024}M`,
      // The guest's writes to its root go to a copy-on-write file, which is deleted afterwards.
      `ubda=${join(this.#directory, "root.cow")},${join(guest, "root.img")}`,
      ...disks.map((file, index) => `ubd${letters[index]}=${file}`),
      ..."root=/dev/ubda rw rootfstype=ext4 init=/sbin/vm-init con=null con0=null,fd:1 quiet".split(" "),
      `uml_dir=${this.#directory}`,
      "vm.kind=uml",
      `vm.source=${projectRoot}`,
      `vm.out=${this.out}`,
    ], "console");
  }

  async #startQemu({ guest, disks, memoryMiB }: Boot): Promise<ChildProcess> {
    const memory = `${memoryMiB ?? 1536}M`;
    // Nothing changes the clone meanwhile. With "auto" the guest drops its cache of a file at each open: lido, 115 MB, started in 3.5 s, not 0.4.
    const shares = [
      { tag: "source", path: projectRoot, cache: "always" },
      { tag: "out", path: this.out, cache: "auto" },
    ];
    for (const { tag, path, cache } of shares) {
      const socket = join(this.#directory, `${tag}.socket`);
      this.#start(
        ["/usr/lib/qemu/virtiofsd", `--socket-path=${socket}`, "-o", `source=${path}`, "-o", `cache=${cache}`],
        `${tag}.log`,
      );
      for (let round = 0; !existsSync(socket); round++) {
        assert.ok(
          round < 500,
          `virtiofsd made no socket: ${readFileSync(join(this.#directory, `${tag}.log`), "utf8")}`,
        );
        await delay(20);
      }
    }
    return this.#start([
      ..."qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -nodefaults -no-user-config -display none -no-reboot"
        .split(" "),
      ...[
        "-m",
        memory,
        "-object",
        `memory-backend-memfd,id=memory,size=${memory},share=on`,
        "-machine",
        "q35,memory-backend=memory",
      ],
      // no_timer_check: on a busy host the emulated timer can miss the moment at which the kernel checks for it, and the kernel then gives up.
      ...["-kernel", join(guest, "vmlinux"), "-append"],
      "console=ttyS0 root=/dev/nvme0n1 rw rootfstype=ext4 init=/sbin/vm-init quiet panic=-1 mitigations=off no_timer_check vm.kind=qemu",
      ...[
        "-drive",
        `if=none,id=root,file=${join(guest, "root.img")},format=raw,snapshot=on,cache=unsafe,file.locking=off`,
      ],
      ...["-device", "nvme,drive=root,serial=root", "-device", "virtio-rng-pci"],
      // "writeback": a flush of the guest is an fsync of the file, and data that the guest has handed over is in this host's page cache, which
      // outlives the emulator. So a killed guest loses what its own kernel had not written yet, and no data that was reported as written.
      ...disks.flatMap((file, index) => [
        ...["-drive", `if=none,id=d${index},file=${file},format=raw,cache=writeback,discard=unmap`],
        ...["-device", `virtio-blk-pci,drive=d${index},serial=disk${index + 1}`],
      ]),
      ...["-chardev", `file,id=console,path=${join(this.#directory, "console")}`, "-serial", "chardev:console"],
      ...shares.flatMap(({ tag }) => [
        ...["-chardev", `socket,id=${tag},path=${join(this.#directory, `${tag}.socket`)}`],
        ...["-device", `vhost-user-fs-pci,chardev=${tag},tag=${tag}`],
      ]),
    ], "emulator");
  }

  /** Simulates a power cut: kills the emulator by SIGKILL, and the guest's memory is lost. */
  kill(): void {
    for (const { pid } of this.#children) {
      try {
        if (pid !== undefined) process.kill(-pid, "SIGKILL");
      } catch { /* the process has ended */ }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.ended.catch(() => {}); // the error goes to the caller that awaits `ended`
    ours.delete(this);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
