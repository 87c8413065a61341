/** Compares lido with LXD 5.0.2 (Debian's) in the guest, on LVM thin and ZFS: one run in which both take turns; prints ratios.
 *   bench.ts [lvm|zfs]... [ROUNDS] [CASE...]     such as "instance init" */
import process from "node:process";
import { prepare } from "./guest.ts";
import { Disks, Machine } from "./machine.ts";

const words = process.argv.slice(2);
const rounds = words.find((word) => /^\d+$/.test(word)) ?? "7";
const drivers = words.filter((word) => /^(lvm|zfs)$/.test(word));
const cases = words.filter((word) => word !== rounds && !drivers.includes(word)).map((word) => `"${word}"`).join(" ");
const guest = await prepare(["lxd", "lxc", "lxcfs", "rsync", "dnsmasq-base"]);
for (const driver of drivers.length > 0 ? drivers : ["lvm", "zfs"]) {
  await using disks = new Disks();
  await using machine = new Machine({
    kind: "qemu",
    guest,
    memoryMiB: 2048,
    disks: [8, 8, 8].map((sizeGiB) => disks.add(sizeGiB)),
    command: `
      mkfs.ext4 -qF "$D1" && mount "$D1" /scratch && cd /src
      ulimit -n "$(ulimit -Hn)"
      export LIDO_TEST_SLOWNESS=10 NO_COLOR=1 DENO_DIR=/tmp/deno
      node_modules/.bin/deno run -A --no-check tests/vm/bench_guest.ts ${driver} ${rounds} ${cases} ||
        { tail -n 20 /scratch/lxd.log /scratch/lido.log; exit 1; }`,
    onOutput: (text) => process.stdout.write(text),
  });
  const code = await machine.ended;
  if (code === undefined) console.error(`Error: The guest ended without a result\n${machine.console}`);
  if (code !== 0) process.exitCode = 1;
}
