/** Power cuts: the emulator is killed in the middle of storage operations, and the guest is booted again on the same disks.
 *
 * The daemon's directory and its pools are on disks that outlive the guest. A cut loses all that the guest's kernel had not handed over to the
 * disks: its page cache and its requests in flight. What it had handed over is in this host's page cache and survives. So the test sees whether
 * lido waits for the disk before it reports success, as a power cut would show. */
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Disks, type Kind, Machine } from "./machine.ts";

export interface CutOffPlan {
  readonly name: string;
  readonly kind: Kind;
  readonly driver: string;
  /** The pool on a block device and the one on a loop file: driver and configuration, as words of `lido storage create`. */
  readonly device: string;
  readonly loop: string;
}

export const cutOffs: readonly CutOffPlan[] = [
  {
    name: "cut off, lvm",
    kind: "qemu",
    driver: "lvm",
    device: "lvm source=$D2 volume.size=64MiB",
    loop: "lvm size=2GiB volume.size=64MiB lvm.use_thinpool=false",
  },
  { name: "cut off, btrfs and dir", kind: "uml", driver: "btrfs", device: "btrfs source=$D2", loop: "btrfs size=1GiB" },
  { name: "cut off, zfs", kind: "qemu", driver: "zfs", device: "zfs source=$D2", loop: "zfs size=1GiB" },
];

/** Boots the guest until every operation of tests/vm/cut_off_guest.ts was interrupted and checked. Each boot checks the state that the last one
 * left, and is killed in the next operation. */
export async function runCutOff(
  plan: CutOffPlan,
  options: { guest: string; leftMs: () => number; print: (line: string) => void },
): Promise<{ passed: number; failed: number }> {
  const { guest, leftMs, print } = options;
  await using scratch = new Disks();
  const disks = [scratch.add(8), scratch.add(4)];
  const out = join(scratch.directory, "out");
  mkdirSync(out);
  const cut = join(out, "cut");
  const sum = { passed: 0, failed: 0 };
  const failed = (reason: string) => {
    sum.failed++;
    print(`  FAILED ${plan.name}: ${reason}`);
  };
  print(`${plan.name}:`);
  for (let boot = 1;; boot++) {
    await using machine = new Machine({
      kind: plan.kind,
      guest,
      disks,
      out,
      command: `
        cd /src
        # With a journal: what was synced must be there again.
        blkid -p "$D1" >/dev/null || mkfs.ext4 -qF "$D1"
        mount "$D1" /scratch
        export TMPDIR=/scratch LIDO_CUT_FILE=/out/cut LIDO_TEST_SLOWNESS=10 NO_COLOR=1
        export DENO_DIR=/tmp/deno
        node_modules/.bin/deno run -A --no-check tests/vm/cut_off_guest.ts "${plan.device}" "${plan.loop}"`,
      onOutput: (text) => text.trimEnd().split("\n").forEach((line) => print(`  ${line}`)),
    });
    const timer = setTimeout(() => machine.kill(), leftMs());
    await Promise.race([machine.made("cut"), machine.ended]);
    clearTimeout(timer);
    machine.kill();
    const code = await machine.ended;
    if (existsSync(cut)) {
      print(`  cut off at: ${readFileSync(cut, "utf8")}`);
      sum.passed++;
      rmSync(cut);
      continue;
    }
    if (code === 0) {
      sum.passed++;
      return sum;
    }
    failed(
      code === undefined
        ? `boot ${boot} ended without a result, or not in time\n${machine.console}`
        : `boot ${boot} ended with ${code}`,
    );
    return sum;
  }
}
