import { arch } from "node:process";
import { LidoError } from "../../api/errors.ts";

/** LXD's names, and other names that users and images use. */
const names: Readonly<Record<string, readonly string[]>> = {
  x86_64: ["amd64", "x64"],
  i686: ["i386", "ia32", "386"],
  aarch64: ["arm64"],
  armv7l: ["armhf", "armel", "arm"],
  ppc64le: ["powerpc64le", "ppc64el"],
  riscv64: ["riscv"],
  s390x: [],
};

/** @returns LXD's name of an architecture. @throws {LidoError} bad_request. */
export function architectureName(name: string): string {
  for (const [known, aliases] of Object.entries(names)) if (known === name || aliases.includes(name)) return known;
  throw new LidoError("bad_request", `Architecture isn't supported: ${name}`);
}

/** @returns LXD's name of this host's architecture. */
export function hostArchitecture(): string {
  return architectureName(arch);
}
