/** The parsers, on the output of zfs-2.1.11 and zfs-2.3.2 of Debian with module 2.3.2. */
import assert from "node:assert/strict";
import { parseBytes, parseDatasets, parseStatus, parseVersion, reasonOf, rows } from "./output.ts";

Deno.test("parseVersion() reads tools and module, of one package or of two", () => {
  assert.deepEqual(parseVersion("zfs-2.3.2-2~bpo12+2\nzfs-kmod-2.3.2-2~bpo12+2\n"), {
    tools: "2.3.2-2~bpo12+2",
    module: "2.3.2-2~bpo12+2",
  });
  assert.deepEqual(parseVersion("zfs-2.1.11-1+deb12u1\nzfs-kmod-2.3.2-2~bpo12+2\n"), {
    tools: "2.1.11-1+deb12u1",
    module: "2.3.2-2~bpo12+2",
  });
  for (const nonsense of ["", "zfs-2.3.2-1\n", "zfs-kmod-2.3.2\n", "btrfs-progs v6.2\n", "zfs-\nzfs-kmod-\n"]) {
    assert.throws(() => parseVersion(nonsense), /Cannot read the version of zfs/);
  }
});

Deno.test("parseDatasets() reads origins and clones; a name may hold a space", () => {
  const output = "p\t-\t-\n" +
    "p/custom/a 2bb\t-\t-\n" +
    "p/custom/default_c\tp/custom/default_v@snapshot-s1\t-\n" +
    "p/custom/default_v@snapshot-s0\t-\t\n" +
    "p/custom/default_v@snapshot-s1\t-\tp/custom/default_c,p/custom/default_d\n";
  assert.deepEqual(parseDatasets(output), [
    { name: "p", origin: undefined, clones: [] },
    { name: "p/custom/a 2bb", origin: undefined, clones: [] },
    { name: "p/custom/default_c", origin: "p/custom/default_v@snapshot-s1", clones: [] },
    { name: "p/custom/default_v@snapshot-s0", origin: undefined, clones: [] },
    {
      name: "p/custom/default_v@snapshot-s1",
      origin: undefined,
      clones: ["p/custom/default_c", "p/custom/default_d"],
    },
  ]);
  assert.deepEqual(parseDatasets(""), []);
  for (const nonsense of ["p -  -", "p\t-", "p\t-\t-\t-\n", "internal error: out of memory"]) {
    assert.throws(() => parseDatasets(nonsense), /Cannot read the output of zfs/);
  }
});

Deno.test("rows() tells the line that it cannot read, cut short", () => {
  assert.throws(() => rows(`${"x".repeat(1000)}\n`, 2), (error: Error) => error.message.length < 300);
});

Deno.test("parseBytes() reads exact numbers, nothing else", () => {
  assert.deepEqual(["0", "21012480", "9223372036854775807"].map(parseBytes), [0n, 21012480n, 9223372036854775807n]);
  assert.deepEqual(["-", "none", ""].map(parseBytes), [undefined, undefined, undefined]);
  for (const nonsense of ["20.0M", "-1", "0x10", "1e3"]) {
    assert.throws(() => parseBytes(nonsense), /Cannot read a size/);
  }
});

Deno.test("parseStatus() reads state, scan and errors", () => {
  const fresh = "  pool: p\n state: ONLINE\nconfig:\n\n\tNAME        STATE     READ WRITE CKSUM\n" +
    "\tp           ONLINE       0     0     0\n\t  /p.img    ONLINE       0     0     0\n\nerrors: No known data errors\n";
  assert.deepEqual(parseStatus(fresh), { state: "ONLINE", scan: undefined, errors: "No known data errors" });

  const scrubbed = fresh.replace(
    "config:",
    "  scan: scrub repaired 0B in 00:00:01 with 0 errors on Wed Nov 25 00:54:21 2026\nconfig:",
  );
  assert.equal(
    parseStatus(scrubbed).scan,
    "scrub repaired 0B in 00:00:01 with 0 errors on Wed Nov 25 00:54:21 2026",
  );

  const scrubbing = fresh.replace(
    "config:",
    "  scan: scrub in progress since Wed Nov 25 00:54:21 2026\n\t1.20G scanned at 307M/s, 0B issued at 0B/s, 1.20G total\n" +
      "\t0B repaired, 0.00% done, no estimated completion time\nconfig:",
  );
  assert.match(
    parseStatus(scrubbing).scan!,
    /^scrub in progress since .*, 1\.20G scanned .*, 0B repaired, 0\.00% done/,
  );

  const degraded = "  pool: d1\n state: DEGRADED\n" +
    "status: One or more devices has been taken offline by the administrator.\n" +
    "\tSufficient replicas exist for the pool to continue functioning in a\n\tdegraded state.\n" +
    "action: Online the device using 'zpool online' or replace the device with\n\t'zpool replace'.\n" +
    "config:\n\n\tNAME        STATE     READ WRITE CKSUM\n\td1          DEGRADED     0     0     0\n" +
    "\t  mirror-0  DEGRADED     0     0     0\n\t    vda     ONLINE       0     0     0\n" +
    "\t    vdb     OFFLINE      0     0     0\n\nerrors: No known data errors\n";
  assert.deepEqual(parseStatus(degraded), { state: "DEGRADED", scan: undefined, errors: "No known data errors" });

  const suspended = "  pool: s2\n state: SUSPENDED\n" +
    "status: One or more devices are faulted in response to IO failures.\n" +
    "action: Make sure the affected devices are connected, then run 'zpool clear'.\n" +
    "   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-HC\n" +
    "config:\n\n\tNAME        STATE     READ WRITE CKSUM\n\ts2          ONLINE       0     0     0\n" +
    "\t  e1        ONLINE       3    24     0\n\nerrors: 8 data errors, use '-v' for a list\n";
  assert.deepEqual(parseStatus(suspended), {
    state: "SUSPENDED",
    scan: undefined,
    errors: "8 data errors, use '-v' for a list",
  });

  for (const nonsense of ["", "no pools available\n", "state of the art\n"]) {
    assert.throws(() => parseStatus(nonsense), /Cannot read the status/);
  }
});

Deno.test("reasonOf() leaves out usage and advice", () => {
  const usage = "cannot open 'p/custom/missing': dataset does not exist\nusage:\n" +
    "\tsnapshot [-r] [-o property=value] ... <filesystem|volume>@<snap> ...\n\n" +
    "For the property list, run: zfs set|get\n\nFor the delegated permission list, run: zfs allow|unallow\n\n" +
    "For further help on a command or topic, run: zfs help [<topic>]\n";
  assert.equal(reasonOf(usage), "cannot open 'p/custom/missing': dataset does not exist");
  const clones = "cannot destroy 'p/custom/default_v': filesystem has dependent clones\n" +
    "use '-R' to destroy the following datasets:\np/custom/default_c\n";
  assert.equal(reasonOf(clones), "cannot destroy 'p/custom/default_v': filesystem has dependent clones");
  const resumable = "cannot receive new filesystem stream: checksum mismatch or incomplete stream.\n" +
    "Partially received snapshot is saved.\nA resuming stream can be generated on the sending system by running:\n" +
    "    zfs send -t 1-d30db96c9-d0-789c63\n";
  assert.match(reasonOf(resumable), /incomplete stream\.\nPartially received snapshot is saved\.$/);
  assert.equal(reasonOf(""), "");
});
