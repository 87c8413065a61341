/** Plans for the guest: for each emulator, the suites of tests/run.ts by driver. */
import { images } from "../boot/images.ts";
import type { Kind } from "./machine.ts";

export interface Plan {
  readonly name: string;
  readonly kind: Kind;
  /** Driver that is tested; the plan is omitted if lido has no such driver. */
  readonly driver: string;
  /** Arguments of tests/run.ts: suites and test files. */
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Images of scripts/make_image.sh that the plan boots; made on the host, since the guest has no network. */
  readonly images?: readonly string[];
  /** Seconds that it took on two processors beside another machine; it is not started when less time is left. */
  readonly seconds: number;
}

/** LVM's volumes are filesystems of a fixed size: small ones, so that several fit and mkfs has little to write. XFS needs at least 300 MiB. */
const lvm = (filesystem: string, isThin: boolean) =>
  `lvm size=4GiB lvm.use_thinpool=${isThin} volume.block.filesystem=${filesystem} volume.size=320MiB`;
const filesystems = ["ext4", "xfs", "btrfs"];
const zfs = "zfs size=2GiB";

const system = (names: readonly string[]) => names.map((name) => `tests/system/${name}.ts`);

/** The driver's conformance suite, and the same driver interrupted at each of its points. Quotas by project ids are tested on the host. */
const conformance = (driver: string): Plan[] =>
  ([["conformance", "driver_test", 750], ["driver cut short", "cut_off_test", 3000]] as const).map((
    [name, file, seconds],
  ) => ({
    name: `${name}, ${driver}`,
    kind: "qemu",
    driver,
    words: [`tests/conformance/${file}.ts`],
    environment: { LIDO_TEST_PLACES: driver },
    seconds,
  }));

/** The tests of features that only this driver has. */
const story = (driver: string): Plan => ({
  name: `story, ${driver}`,
  kind: "qemu",
  driver,
  words: system([`pools/${driver}_test`]),
  environment: {},
  seconds: 660,
});

/** The README's first command: from nothing to two containers that share a volume. */
const quickstart = (what: string, driver: string, pool: string): Plan => ({
  name: `quickstart, ${what}`,
  kind: "qemu",
  driver,
  words: system(["daemon/quickstart_test"]),
  environment: { LIDO_TEST_POOLS: pool },
  seconds: 120,
});

/** Suites that run on the pool given by the environment, with the seconds that they take on an emulated processor. */
const poolSuites: readonly (readonly [name: string, files: readonly string[], seconds: number])[] = [
  ["facets and bad input", ["pools/facets_test", "daemon/bad_input_test", "daemon/daemon_test"], 450],
  ["sharing", ["volumes/sharing_test"], 350],
  ["exec", ["exec/exec_test", "exec/exec_hostile_test"], 300],
  ["exec of clients", ["exec/exec_client_test", "exec/exec_sessions_test"], 250],
];

/** @param other A pool of the other driver that only the guest has. */
const onPool = (driver: string, pool: string, other: string): Plan[] => [
  ...poolSuites.map(([name, files, seconds]): Plan => ({
    name: `${name}, ${driver}`,
    kind: "qemu",
    driver,
    words: system(files),
    environment: {
      LIDO_TEST_POOL: pool,
      LIDO_TEST_PLACES: driver,
      LIDO_TEST_OTHER_POOL: other,
      LIDO_SHARING_POOLS: JSON.stringify([{ name: driver, driver, config: pool.split(" ").slice(1) }]),
    },
    seconds,
  })),
  // Killing the daemon at each point of each operation takes hours on an emulated processor: here only at every n-th point. The host tests each
  // point, with the drivers that it has.
  ...["storage", "instances"].map((what): Plan => ({
    name: `crash of ${what}, ${driver}`,
    kind: "qemu",
    driver,
    words: [`tests/crash/${what}_test.ts`],
    environment: {
      LIDO_TEST_POOL: pool,
      LIDO_CRASH_POOLS: "fast",
      LIDO_CRASH_MODES: "kill",
      LIDO_CRASH_EVERY: "9",
    },
    seconds: 2400,
  })),
];

/** A machine starts with its first plan here: dir's is last, since it has many short plans, some of which can be omitted. */
export const plans: readonly Plan[] = [
  ...conformance("lvm"),
  story("lvm"),
  ...filesystems.flatMap((filesystem) => [
    quickstart(`lvm thin, ${filesystem}`, "lvm", lvm(filesystem, true)),
    quickstart(`lvm classic, ${filesystem}`, "lvm", lvm(filesystem, false)),
  ]),
  ...onPool("lvm", lvm("ext4", true), zfs),
  ...conformance("zfs"),
  story("zfs"),
  quickstart("zfs", "zfs", zfs),
  ...onPool("zfs", zfs, lvm("ext4", true)),
  // The guest has cgroup2 alone, and Debian 12's kernel.
  {
    name: "podman",
    kind: "qemu",
    driver: "dir",
    words: ["tests/boot/podman_test.ts"],
    environment: {},
    images: ["debian/12-podman"],
    seconds: 300,
  },
  {
    name: "limits, cgroup2 alone",
    kind: "qemu",
    driver: "dir",
    words: system(["instances/limits_test", "instances/lxcfs_test"]),
    environment: {},
    seconds: 300,
  },
  {
    name: "project quotas",
    kind: "qemu",
    driver: "dir",
    words: ["tests/conformance/quota_test.ts", "tests/crash/quota_test.ts"],
    environment: { LIDO_TEST_PLACES: "quota", LIDO_CRASH_EVERY: "7" },
    seconds: 830,
  },
  {
    name: "apparmor",
    kind: "qemu",
    driver: "dir",
    words: system(["instances/apparmor_test"]),
    environment: {},
    seconds: 120,
  },
  {
    name: "boot",
    kind: "qemu",
    driver: "dir",
    words: ["tests/boot/boot_test.ts"],
    environment: {},
    images: ["busybox", "debian/12"],
    seconds: 760,
  },
  ...images.map(({ name }): Plan => ({
    name: `boot of all images: ${name}`,
    kind: "qemu",
    driver: "dir",
    words: ["tests/boot/all_test.ts"],
    environment: { LIDO_BOOT_IMAGES: name, LIDO_BOOT_CYCLES: "2" },
    images: [name],
    seconds: 400,
  })),
];
