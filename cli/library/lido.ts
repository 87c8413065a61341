/** The library: a daemon as an object, with the same client as the command line. */
import type {
  Config,
  Devices,
  Event,
  ExecSession,
  Image,
  Instance,
  InstanceState,
  Profile,
  Server,
  StoragePool,
  StorageVolume,
} from "../../api/types.ts";
import { Client, url } from "../client/client.ts";
import { type Endpoint, localEndpoint } from "../client/endpoint.ts";
import { events } from "../client/events.ts";
import { type ExecOptions, ExecProcess } from "./process.ts";

/** Connects to the local daemon, or to another one by its https URL.
 * @throws {ConnectionError} When it cannot be reached. */
export async function connect(endpoint: Endpoint = localEndpoint()): Promise<Lido> {
  const lido = new Lido(new Client(endpoint));
  await lido.server();
  return lido;
}

export interface CreateOptions {
  readonly profiles?: readonly string[];
  readonly config?: Config;
  readonly devices?: Devices;
  /** Pool of the root disk; default: the one in the profiles. */
  readonly pool?: string;
}

/** One daemon. Every method throws `ApiError` with the daemon's message when it refuses, `ConnectionError` when it cannot be reached. */
export class Lido implements AsyncDisposable {
  /** For all that has no method here: it can request any path of the API. */
  readonly client: Client;

  constructor(client: Client) {
    this.client = client;
  }

  server(): Promise<Server> {
    return this.client.get("/1.0");
  }

  instances(): Promise<Instance[]> {
    return this.client.get("/1.0/instances?recursion=1");
  }

  images(): Promise<Image[]> {
    return this.client.get("/1.0/images?recursion=1");
  }

  profiles(): Promise<Profile[]> {
    return this.client.get("/1.0/profiles?recursion=1");
  }

  pools(): Promise<StoragePool[]> {
    return this.client.get("/1.0/storage-pools?recursion=1");
  }

  async createPool(name: string, driver: string, config: Config = {}): Promise<void> {
    await this.client.change("POST", "/1.0/storage-pools", { name, driver, config });
  }

  async deletePool(name: string): Promise<void> {
    await this.client.change("DELETE", url`/1.0/storage-pools/${name}`);
  }

  /** Custom volumes without their snapshots. */
  async volumes(pool: string): Promise<StorageVolume[]> {
    const path = `${url`/1.0/storage-pools/${pool}/volumes/custom`}?recursion=1`;
    return (await this.client.get<StorageVolume[]>(path)).filter(({ name }) => !name.includes("/"));
  }

  async createVolume(pool: string, name: string, config: Config = {}): Promise<void> {
    await this.client.change("POST", url`/1.0/storage-pools/${pool}/volumes/custom`, { name, config });
  }

  async deleteVolume(pool: string, name: string): Promise<void> {
    await this.client.change("DELETE", url`/1.0/storage-pools/${pool}/volumes/custom/${name}`);
  }

  /** Makes an instance from an image, by alias or fingerprint; it is not started. */
  async create(image: string, name: string, options: CreateOptions = {}): Promise<InstanceHandle> {
    const { pool, profiles, config = {}, devices = {} } = options;
    const root = pool === undefined ? {} : { root: { type: "disk", path: "/", pool } };
    await this.client.change("POST", "/1.0/instances", {
      name,
      config,
      devices: { ...root, ...devices },
      ...(profiles ? { profiles } : {}),
      source: { type: "image", alias: image },
    });
    return this.instance(name);
  }

  /** An instance by its name; sends no request yet. */
  instance(name: string): InstanceHandle {
    return new InstanceHandle(this.client, name);
  }

  /** Detachable commands, also ended ones whose result was not fetched yet. */
  sessions(): Promise<ExecSession[]> {
    return this.client.get("/1.0/exec-sessions?recursion=1");
  }

  /** Attaches to a detachable command; the last MiB of its output comes first. */
  attach(session: string): Promise<ExecProcess> {
    return ExecProcess.attach(this.client, session);
  }

  /** The daemon's events from now on. */
  events(types: readonly Event["type"][] = []): AsyncGenerator<Event> {
    return events(this.client, types);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
  }
}

export class InstanceHandle {
  readonly name: string;
  readonly #client: Client;

  constructor(client: Client, name: string) {
    this.#client = client;
    this.name = name;
  }

  show(): Promise<Instance> {
    return this.#client.get(url`/1.0/instances/${this.name}`);
  }

  state(): Promise<InstanceState> {
    return this.#client.get(url`/1.0/instances/${this.name}/state`);
  }

  async start(): Promise<void> {
    await this.#change("start");
  }

  /** @param options.force Kills it. @param options.timeoutSeconds How long its init may take; negative: no limit. */
  async stop(options: { force?: boolean; timeoutSeconds?: number } = {}): Promise<void> {
    await this.#change("stop", options);
  }

  async delete(): Promise<void> {
    await this.#client.change("DELETE", url`/1.0/instances/${this.name}`);
  }

  /** Attaches a custom volume at a path in the instance, at once if it runs. The device gets the volume's name. */
  async attach(pool: string, volume: string, path: string): Promise<void> {
    const device = { type: "disk", pool, source: volume, path };
    await this.#client.change("PATCH", url`/1.0/instances/${this.name}`, { devices: { [volume]: device } });
  }

  /** Starts a command, without a shell. */
  exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecProcess> {
    return ExecProcess.start(this.#client, this.name, command, options);
  }

  async #change(action: string, options: { force?: boolean; timeoutSeconds?: number } = {}): Promise<void> {
    const { force = false, timeoutSeconds: timeout = -1 } = options;
    await this.#client.change("PUT", url`/1.0/instances/${this.name}/state`, { action, force, timeout });
  }
}
