/** The test guest as a process: booted on disks of the caller's, its output followed, ended at a moment of the caller's choice.
 *
 * Two emulators run the one root filesystem. *uml*, user-mode Linux, is a kernel as a process: it boots in two seconds, has one CPU, device-mapper,
 * no ZFS, and starts a program in as much as a third of a second where page faults are dear. *qemu* emulates every instruction (KVM is not asked
 * for: on hosts that are guests themselves it fails late and oddly): six to nine times slower, two CPUs, all modules, ZFS among them. */
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
  /** What `prepare.sh` made. */
  readonly guest: string;
  /** Run by bash as root, with $D1, $D2, ... the devices of `disks` and the clone read-only in /src; what it leaves in /out is in `Machine.out`. */
  readonly command: string;
  /** Files that are the guest's disks. They outlive it: another boot goes on with what is on them. */
  readonly disks: readonly string[];
  readonly memoryMiB?: number;
  /** A directory of the caller's to be /out; one that goes with the machine when absent. */
  readonly out?: string;
  readonly onOutput?: (text: string) => void;
}

/** Emulators and disks do not go with the process that made them unless they are told, by a signal too. */
const ours = new Set<AsyncDisposable>();
for (const [signal, number] of [["SIGINT", 2], ["SIGTERM", 15], ["SIGHUP", 1]] as const) {
  process.once(signal, async () => {
    // The machines are younger than the disks they run on.
    for (const one of [...ours].reverse()) await one[Symbol.asyncDispose]();
    process.exit(128 + number);
  });
}

/** A temporary directory with empty disks in it, holes until they are written to. */
export class Disks implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "lido-disks-"));

  constructor() {
    ours.add(this);
  }

  /** @returns Path of a new one. */
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
  /** Settles with the exit code of the command, or undefined when the guest ended without one. */
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

  /** All that the command has printed. */
  get output(): string {
    return readFileSync(join(this.out, "log"), "utf8");
  }

  /** What the kernel and the emulator said, for a guest that ended without a result. */
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

  /** @returns When the guest has made this file in `out`. */
  made(name: string): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push({ path: join(this.out, name), resolve });
      this.#look();
    });
  }

  /** What the guest writes into `out` is written by a process of this host, so that the kernel tells of it. */
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
    // A process group of its own: user-mode Linux has a process for each of the guest's, and all end together.
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
      // What the guest writes to its root goes into a file beside it that is thrown away.
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
    // Nobody changes the clone meanwhile. With "auto" the guest forgets what it read of a file at each open: lido, 115 MB, started in 3.5 s, not 0.4.
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
      // no_timer_check: on a busy host the emulated timer can miss the moment at which the kernel looks for it, which then gives up.
      ...["-kernel", join(guest, "vmlinux"), "-append"],
      "console=ttyS0 root=/dev/nvme0n1 rw rootfstype=ext4 init=/sbin/vm-init quiet panic=-1 mitigations=off no_timer_check vm.kind=qemu",
      ...[
        "-drive",
        `if=none,id=root,file=${join(guest, "root.img")},format=raw,snapshot=on,cache=unsafe,file.locking=off`,
      ],
      ...["-device", "nvme,drive=root,serial=root", "-device", "virtio-rng-pci"],
      // "writeback": a flush of the guest is an fsync of the file, and what the guest has handed over is in this host's page cache, which
      // outlives the emulator. So a cut-off guest loses what its own kernel had not written yet, and nothing that it was told is safe.
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

  /** The power is cut: the emulator ends by SIGKILL, the guest's memory is gone. */
  kill(): void {
    for (const { pid } of this.#children) {
      try {
        if (pid !== undefined) process.kill(-pid, "SIGKILL");
      } catch { /* it has ended */ }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.ended.catch(() => {}); // told to whom awaits it
    ours.delete(this);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
