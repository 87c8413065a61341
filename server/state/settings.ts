import { LidoError } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import { hashPassword } from "../auth/password.ts";
import { parseAddress } from "../http/address.ts";
import type { Database } from "./database.ts";

const passwordKey = "core.trust_password";

/** The daemon's own configuration keys. */
const known: Readonly<Record<string, (value: string) => boolean>> = {
  "core.https_address": (value) => parseAddress(value) !== undefined,
  [passwordKey]: () => true,
  "images.auto_update_interval": (value) => /^\d+$/.test(value),
};

export class Settings {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  all(): Config {
    const rows = this.#database.all("SELECT key, value FROM config ORDER BY key");
    return Object.fromEntries(rows.map((row) => [String(row.key), String(row.value)]));
  }

  get(key: string): string | undefined {
    return this.#database.get("SELECT value FROM config WHERE key = ?", key)?.value as string | undefined;
  }

  /** @throws {LidoError} bad_request for an unknown key or a value it cannot have; nothing is changed then. */
  async replace(config: Config): Promise<void> {
    for (const [key, value] of Object.entries(config)) {
      const check = Object.hasOwn(known, key) ? known[key] : undefined;
      if (!key.startsWith("user.") && !check) {
        throw new LidoError("bad_request", `Cannot set "${key}" to "${value}": unknown key`);
      }
      if (check && value !== "" && !check(value)) {
        throw new LidoError("bad_request", `Cannot set "${key}" to "${value}": invalid value`);
      }
    }
    const kept = this.get(passwordKey), password = config[passwordKey] ?? "";
    // A client that changes something else sends back what it was shown.
    const isUnchanged = kept !== undefined && (password === kept || password === "true");
    const stored = isUnchanged ? kept : password && await hashPassword(password);
    this.#database.transaction(() => {
      this.#database.run("DELETE FROM config");
      for (const [key, value] of Object.entries({ ...config, [passwordKey]: stored })) {
        if (value !== "") this.#database.run("INSERT INTO config (key, value) VALUES (?, ?)", key, value);
      }
    });
  }
}
