import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { LidoError } from "../../../api/errors.ts";
import { run } from "../../host/tools/command.ts";
import { findTool, notInstalled } from "../../host/tools/host_tools.ts";
import { profileText } from "./apparmor_profile.ts";
import type { ContainerSpec } from "../runtime.ts";

const tool = "apparmor_parser";
const control = "/sys/kernel/security/apparmor";
/** Maximum of kept policies, of some 10 KiB each. */
const policiesMax = 256;

/** The AppArmor profiles of a daemon's containers, each loaded while its container runs. An unprivileged container also has a policy namespace of its
 * own, where the kernel supports them: for profiles loaded inside it (Docker's, snaps').
 * @see "Namespaces" in AppArmor's documentation; apparmor(7) */
export class AppArmor {
  readonly #directory: string;
  readonly #prefix: string;
  readonly #canStack: boolean;
  /** Kept for the next start: apparmor_parser(8) takes a third of a start's time. */
  readonly #policies = new Map<string, { readonly text: string; readonly policy: Uint8Array }>();

  /** @returns undefined on a host without AppArmor, or where it cannot be used: then `warn` gets the reason.
   * @param options.directory For temporary files. @param options.daemon Prefix of its profiles' names. */
  static find(options: { directory: string; daemon: string; warn: (reason: string) => void }): AppArmor | undefined {
    if (read("/sys/module/apparmor/parameters/enabled").trim() !== "Y") return undefined;
    const reason = unusable();
    if (reason === undefined) return new AppArmor(options);
    options.warn(reason);
    return undefined;
  }

  private constructor({ directory, daemon }: { directory: string; daemon: string }) {
    this.#directory = directory;
    this.#prefix = `${daemon}_`;
    this.#canStack = read(join(control, "features/domain/stack")).trim() === "yes" && existsSync(namespaces);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** Loads a container's profile. @returns The label that its init is executed with. */
  async load(spec: Pick<ContainerSpec, "name" | "idmap" | "nesting">): Promise<string> {
    const name = this.#prefix + spec.name;
    const privileged = spec.idmap === undefined, nesting = spec.nesting ?? false;
    const hasNamespace = this.#canStack && !privileged;
    const text = profileText(name, { privileged, nesting, ...(hasNamespace ? { policyNamespace: name } : {}) });
    const policy = await this.#compiled(name, text);
    tell(".replace", policy, `Failed to load the AppArmor profile "${name}"`);
    if (!hasNamespace) return name;
    mkdirSync(join(namespaces, name), { recursive: true });
    return stacked(name);
  }

  /** @returns The label for a command in a running container, which an older daemon may have started; undefined when its init has no profile. */
  labelOf(container: string, init: number): string | undefined {
    const name = this.#prefix + container;
    const current = read(`/proc/${init}/attr/current`);
    if (!current.startsWith(name) || /^[\w-]/.test(current.slice(name.length))) return undefined;
    return existsSync(join(namespaces, name)) ? stacked(name) : name;
  }

  /** Unloads the profile of an ended container, and the profiles loaded in its namespace. */
  unload(container: string): void {
    const name = this.#prefix + container;
    if (!this.containers().includes(container)) return;
    if (existsSync(join(namespaces, name))) rmdirSync(join(namespaces, name));
    tell(".remove", Buffer.from(name), `Failed to unload the AppArmor profile "${name}"`);
  }

  /** @returns The containers whose profiles are loaded. */
  containers(): string[] {
    return read(join(control, "profiles")).split("\n").map((line) => line.replace(/ \(\w+\)$/, ""))
      .filter((name) => name.startsWith(this.#prefix)).map((name) => name.slice(this.#prefix.length));
  }

  async #compiled(name: string, text: string): Promise<Uint8Array> {
    const kept = this.#policies.get(name);
    if (kept?.text === text) return kept.policy;
    const output = join(this.#directory, `.${name}.policy`);
    const featuresFile = join(this.#directory, `.${name}.features`);
    try {
      writeFileSync(featuresFile, featuresText());
      const argv = [tool, "--quiet", "--skip-kernel-load", "--skip-cache", "--features-file", featuresFile];
      await run([...argv, "--ofile", output], { stdin: text });
      const policy = readFileSync(output);
      if (this.#policies.size >= policiesMax) this.#policies.delete(this.#policies.keys().next().value!);
      this.#policies.set(name, { text, policy });
      return policy;
    } finally {
      for (const path of [output, featuresFile]) rmSync(path, { force: true });
    }
  }
}

const namespaces = join(control, "policy/namespaces");
const stacked = (name: string) => `${name}//&:${name}:unconfined`;

/** The kernel features that policies declare: those that the profile has rules for. The kernel does not mediate features that a policy does not
 * declare. So it allows what later kernels can forbid, and all use of sockets, as intended: Linux before 6.2 has no permission to lock a socket, and
 * without it systemd gives no service a network namespace (PrivateNetwork=).
 * @see "feature ABI" in apparmor.d(5); https://bugs.launchpad.net/bugs/1780227 */
const features = {
  "": "capability caps dbus domain file mount policy ptrace query rlimit signal",
  "namespaces": "pivot_root profile",
};

/** @returns `features` in the format that apparmor_parser(8) reads. */
function featuresText(): string {
  return Object.entries(features).map(([group, names]) => {
    const directory = join(control, "features", group);
    const text = names.split(" ").filter((name) => existsSync(join(directory, name))).map((name) =>
      featureText(directory, name)
    ).join("");
    return group === "" ? text : `${group} {${text}}\n`;
  }).join("");
}

function featureText(directory: string, name: string): string {
  const path = join(directory, name);
  const children = statSync(path).isDirectory() ? readdirSync(path) : undefined;
  return `${name} {${children?.map((child) => featureText(path, child)).join("") ?? read(path)}}\n`;
}

function unusable(): string | undefined {
  if (!findTool(tool)) return notInstalled(tool);
  try {
    accessSync(join(control, ".replace"), constants.W_OK);
  } catch {
    return `"${control}" is not mounted, or is not this daemon's`;
  }
  const own = read("/proc/self/attr/current").trim();
  return own === "unconfined" ? undefined : `the daemon has a profile itself: ${own}`;
}

/** Written in one write, as the kernel requires. */
function tell(file: string, content: Uint8Array, failure: string): void {
  const fd = openSync(join(control, file), "w");
  try {
    if (writeSync(fd, content) !== content.length) throw new Error("it was not taken as a whole");
  } catch (error) {
    throw new LidoError("internal", `${failure}: ${(error as Error).message}`);
  } finally {
    closeSync(fd);
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8").replaceAll("\0", "");
  } catch {
    return "";
  }
}
