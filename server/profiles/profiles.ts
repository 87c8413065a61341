import { LidoError, notFound } from "../../api/errors.ts";
import type { Devices, Profile, ProfilePut, ProfilesPost } from "../../api/types.ts";
import type { Events } from "../events/events.ts";
import { checkProfileConfig } from "../config/instance.ts";
import { checkDevices } from "../config/devices.ts";
import type { Expanded } from "../instances/table.ts";
import type { Followed, UpdateOptions } from "../instances/update.ts";
import type { Journal, OpenIntent } from "../journal/journal.ts";
import type { Database, Row } from "../state/database.ts";
import { Locks } from "../store/locks.ts";

export interface ProfilesOptions {
  readonly database: Database;
  readonly events: Events;
  readonly journal: Journal;
  /** The instances that have a profile, with all their settings; the instance service is built later. */
  readonly users: (profile: string) => Map<string, Expanded>;
  /** Applies a profile's new settings to the instances that have it. @param before Result of `users` before the change. */
  readonly changed: (before: Map<string, Expanded>, options: UpdateOptions) => Promise<Followed>;
  readonly log: { warn(context: object, message: string): void };
}

interface UpdateIntent {
  readonly name: string;
  readonly before: ProfilePut;
}

/** LXD's text. */
const notFollowed = "The following instances failed to update (profile change still saved):";

function lineOf({ instance, reason }: Followed["failures"][number]): string {
  return ` - Project: default, Instance: ${instance}: ${reason}`;
}

function rootPool(devices: Devices): string | undefined {
  return Object.values(devices).find((device) => device.type === "disk" && device.path === "/")?.pool;
}

/** Settings and devices that instances share. */
export class Profiles {
  readonly #options: ProfilesOptions;
  /** By name, for changes. */
  readonly #locks = new Locks();
  readonly #open: OpenIntent<UpdateIntent>;

  constructor(options: ProfilesOptions) {
    this.#options = options;
    // Also rolls back the instances that have followed. A failing one does not keep the intent open, since a later retry would undo later changes.
    this.#open = options.journal.kind<UpdateIntent>("profile.update", async ({ name, before }) => {
      const { failures } = await this.#change(name, before);
      if (failures.length > 0) options.log.warn({ profile: name, failures }, "instances did not follow a profile back");
    });
  }

  names(): string[] {
    return this.#options.database.all("SELECT name FROM profiles ORDER BY name").map((row) => String(row.name));
  }

  list(): Profile[] {
    const users = this.#users();
    return this.#options.database.all("SELECT * FROM profiles ORDER BY name").map((row) => view(row, users));
  }

  /** @throws {LidoError} not_found. */
  get(name: string): Profile {
    return view(this.#row(name), this.#users());
  }

  etag(name: string): unknown {
    const { description, config, devices } = this.#row(name);
    return [description, config, devices];
  }

  create(post: ProfilesPost): void {
    checkProfileName(post.name);
    this.#check(post);
    if (this.#find(post.name)) {
      throw new LidoError("conflict", `Error inserting "${post.name}" into database: The profile already exists`);
    }
    this.#options.database.run(
      "INSERT INTO profiles (name, description, config, devices) VALUES (?, ?, ?, ?)",
      post.name,
      post.description,
      JSON.stringify(post.config),
      JSON.stringify(post.devices),
    );
    this.#options.events.lifecycle("profile-created", `/1.0/profiles/${post.name}`);
  }

  /** Changes a profile and the instances that have it. An instance that cannot follow stays as it was until it is changed or started again.
   * @param isPatch Whether absent fields are kept. @returns Notes for the client.
   * @throws {LidoError} bad_request; with LXD's text if instances could not follow, although the change is saved. */
  async update(
    name: string,
    put: ProfilePut,
    isPatch: boolean,
    options: UpdateOptions = {},
  ): Promise<readonly string[]> {
    // Rolling back a failed change must not overwrite a later one.
    return await this.#locks.hold([name], async () => {
      const row = this.#row(name);
      const before = {
        description: String(row.description),
        config: JSON.parse(String(row.config)),
        devices: JSON.parse(String(row.devices)),
      };
      const after = isPatch
        ? {
          description: put.description || before.description,
          config: { ...before.config, ...put.config },
          devices: { ...before.devices, ...put.devices },
        }
        : put;
      this.#check(after);
      if (rootPool(after.devices) !== rootPool(before.devices)) this.#checkRootUsers(name);
      await using intent = this.#open({ name, before });
      const { notes, failures } = await this.#change(name, after, options);
      intent.commit(() => {});
      this.#options.events.lifecycle("profile-updated", `/1.0/profiles/${name}`);
      if (failures.length > 0) throw new LidoError("bad_request", [notFollowed, ...failures.map(lineOf)].join("\n"));
      return notes;
    });
  }

  rename(name: string, to: string): void {
    this.#row(name);
    if (name === "default") throw new LidoError("forbidden", "The 'default' profile cannot be renamed");
    checkProfileName(to);
    if (this.#find(to)) throw new LidoError("conflict", `Profile "${to}" already exists`);
    const { database, events } = this.#options;
    database.transaction(() => {
      database.run("UPDATE profiles SET name = ? WHERE name = ?", to, name);
      for (const table of ["instances", "instance_snapshots"]) {
        for (const row of database.all(`SELECT id, profiles FROM ${table}`)) {
          const profiles: string[] = JSON.parse(String(row.profiles));
          if (!profiles.includes(name)) continue;
          const renamed = profiles.map((profile) => profile === name ? to : profile);
          database.run(`UPDATE ${table} SET profiles = ? WHERE id = ?`, JSON.stringify(renamed), row.id!);
        }
      }
    });
    events.lifecycle("profile-renamed", `/1.0/profiles/${to}`, { old_name: name });
  }

  delete(name: string): void {
    const profile = this.get(name);
    if (name === "default") throw new LidoError("forbidden", "The 'default' profile cannot be deleted");
    if (profile.used_by.length > 0) throw new LidoError("bad_request", "Profile is currently in use");
    this.#options.database.run("DELETE FROM profiles WHERE name = ?", name);
    this.#options.events.lifecycle("profile-deleted", `/1.0/profiles/${name}`);
  }

  async #change(name: string, put: ProfilePut, options: UpdateOptions = {}): Promise<Followed> {
    if (!this.#find(name)) return { notes: [], failures: [] };
    const before = this.#options.users(name);
    this.#write(name, put);
    return await this.#options.changed(before, options);
  }

  #write(name: string, put: ProfilePut): void {
    this.#options.database.run(
      "UPDATE profiles SET description = ?, config = ?, devices = ? WHERE name = ?",
      put.description,
      JSON.stringify(put.config),
      JSON.stringify(put.devices),
      name,
    );
  }

  #check({ config, devices }: Pick<ProfilePut, "config" | "devices">): void {
    checkProfileConfig(config);
    checkDevices(devices);
  }

  /** An instance cannot change its pool. @throws {LidoError} When an instance gets its root disk from this profile. */
  #checkRootUsers(name: string): void {
    const { database } = this.#options;
    const roots = new Map(
      database.all("SELECT name, devices FROM profiles").map((row) => [
        String(row.name),
        rootPool(JSON.parse(String(row.devices))),
      ]),
    );
    for (const row of database.all("SELECT profiles, devices FROM instances")) {
      if (rootPool(JSON.parse(String(row.devices))) !== undefined) continue;
      const profiles: string[] = JSON.parse(String(row.profiles));
      if (profiles.findLast((profile) => roots.get(profile) !== undefined) === name) {
        throw new LidoError("bad_request", "At least one instance relies on this profile's root disk device");
      }
    }
  }

  #find(name: string): Row | undefined {
    return this.#options.database.get("SELECT * FROM profiles WHERE name = ?", name);
  }

  #row(name: string): Row {
    const row = this.#find(name);
    if (!row) throw notFound("Profile", name);
    return row;
  }

  /** Profile → URLs of the instances that have it. */
  #users(): Map<string, string[]> {
    const users = new Map<string, string[]>();
    for (const row of this.#options.database.all("SELECT name, profiles FROM instances ORDER BY name")) {
      for (const profile of JSON.parse(String(row.profiles)) as string[]) {
        const urls = users.get(profile) ?? [];
        if (urls.length === 0) users.set(profile, urls);
        urls.push(`/1.0/instances/${row.name}`);
      }
    }
    return users;
  }
}

function view(row: Row, users: Map<string, string[]>): Profile {
  return {
    config: JSON.parse(String(row.config)),
    description: String(row.description),
    devices: JSON.parse(String(row.devices)),
    name: String(row.name),
    used_by: users.get(String(row.name)) ?? [],
  };
}

function checkProfileName(name: string): void {
  if (name === "") throw new LidoError("bad_request", "No name provided");
  if (name.includes("/")) throw new LidoError("bad_request", "Profile names may not contain slashes");
  if (name === "." || name === ".." || !/^[\w.@+-]{1,63}$/.test(name)) {
    throw new LidoError(
      "bad_request",
      `Invalid profile name ${JSON.stringify(name)}: up to 63 letters, digits and . _ - + @ are allowed`,
    );
  }
}
