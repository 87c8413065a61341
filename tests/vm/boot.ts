/** Boots the guest by hand for one command, and ends with its output and exit code.
 *   deno run -A tests/vm/boot.ts uml|qemu 'command'     $D1 to $D3 are empty disks, /src is the clone, /out is shared with the host */
import process from "node:process";
import { prepare } from "./guest.ts";
import { Disks, Machine } from "./machine.ts";

const [kind, command] = process.argv.slice(2);
if ((kind !== "uml" && kind !== "qemu") || !command) {
  console.error("Error: boot.ts uml|qemu 'command'");
  process.exit(2);
}
await using disks = new Disks();
await using machine = new Machine({
  kind,
  guest: await prepare(),
  command,
  disks: [8, 8, 8].map((sizeGiB) => disks.add(sizeGiB)),
  onOutput: (text) => process.stdout.write(text),
});
const code = await machine.ended;
if (code === undefined) console.error(`Error: The guest ended without a result\n${machine.console}`);
process.exitCode = code ?? 125;
