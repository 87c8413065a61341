import { messageOf } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { Mounts } from "../../drivers/host/host.ts";
import type { MountSpec, Runtime } from "../../drivers/runtime/runtime.ts";
import { type Guest, guestApi, hasGuestApi } from "./guest_api.ts";
import { guestEvents } from "./guest_events.ts";
import { GuestSockets } from "./guest_sockets.ts";
import type { ResourceView } from "./resource_view.ts";
import { SocketDirectory } from "./socket_directory.ts";

const target = "/dev/lxd";

export interface GuestsOptions {
  /** `$LIDO_DIR/devlxd`. */
  readonly directory: string;
  readonly mounts: Pick<Mounts, "at" | "mount" | "unmount">;
  readonly runtime: Pick<Runtime, "get" | "attach" | "detach" | "isAttached">;
  /** An instance as it is now. */
  readonly guest: (name: string) => Guest | undefined;
  readonly resources: Pick<ResourceView, "mounts" | "release">;
  readonly log: { warn(context: object, message: string): void };
}

/** What every running container gets beside its disks: its own limits in /proc, and the guest API, `/dev/lxd/sock`, unless `security.devlxd` is
 * false. The socket's directory outlives the daemon, so that the next daemon can listen in the directory that the container has mounted. */
export class Guests {
  readonly #options: GuestsOptions;
  readonly #sockets: GuestSockets;

  constructor(options: GuestsOptions) {
    this.#options = options;
    const { runtime, guest } = options;
    this.#sockets = new GuestSockets({
      directory: new SocketDirectory(options.directory, options.mounts),
      answer: (name, request) => guestApi(() => guest(name)).fetch(request),
      rootUid: (name) => {
        const running = runtime.get(name);
        return running && (running.idmap?.uid.find(({ container }) => container === 0)?.host ?? 0);
      },
      mayListen: (name) => hasGuestApi(guest(name)?.config ?? {}),
    });
  }

  /** Called before a container's start: listens for it. @param config Expanded. @returns The mounts to make. */
  async prepare(name: string, config: Config): Promise<MountSpec[]> {
    const mounts = await this.#options.resources.mounts(name);
    if (!hasGuestApi(config)) return mounts;
    await this.#sockets.open(name);
    return [...mounts, this.#mount(name)];
  }

  /** Called after the end of a container, or a failed start. */
  release(name: string): Promise<void> {
    this.#options.resources.release(name);
    return this.#sockets.delete(name);
  }

  /** Listens again for the containers that an earlier daemon started; deletes the directories of ended ones. */
  async adopt(): Promise<void> {
    for (const name of this.#sockets.directories()) {
      try {
        if (this.#options.runtime.get(name)) await this.#sockets.open(name);
        else await this.#sockets.delete(name);
      } catch (error) {
        this.#options.log.warn({ instance: name, error: messageOf(error) }, "cannot serve an instance's guest API");
      }
    }
  }

  /** Sends a running container the events of a change, and mounts or unmounts the API by `security.devlxd`.
   * @throws {LidoError} When the container prevents the mount or unmount. */
  async changed(before: Guest, after: Guest): Promise<void> {
    const { name } = after;
    const { runtime } = this.#options;
    if (!runtime.get(name)) return;
    if (hasGuestApi(before.config)) {
      for (const event of guestEvents(before, after)) {
        this.#sockets.publish(name, event);
      }
    }
    if (hasGuestApi(before.config) === hasGuestApi(after.config)) return;
    if (hasGuestApi(after.config)) {
      await this.#sockets.open(name);
      if (!await runtime.isAttached(name, this.#mount(name))) await runtime.attach(name, this.#mount(name));
    } else {
      await runtime.detach(name, this.#mount(name), { lazy: true, removeTarget: true });
      await this.#sockets.delete(name);
    }
  }

  /** Closes all connections; the directories stay for the next daemon. */
  close(): Promise<void> {
    return this.#sockets.closeAll();
  }

  #mount(name: string): MountSpec {
    return {
      source: this.#sockets.directory(name),
      target,
      options: ["ro", "nosuid", "nodev", "noexec"],
      recursive: false,
    };
  }
}
