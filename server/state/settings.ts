import { allowedKeys } from "../../api/allowed.ts";
import { LidoError } from "../../api/errors.ts";
import type { Config } from "../../api/types.ts";
import type { ConfigKey } from "../../drivers/storage/driver.ts";
import { hashPassword } from "../credentials/password.ts";
import { parseAddress } from "../http/address.ts";
import { isOrigin } from "../http/origin.ts";
import type { Database } from "./database.ts";

const passwordKey = "core.trust_password";

function isAddress(value: string): boolean {
  try {
    parseAddress(value);
    return true;
  } catch {
    return false;
  }
}

/** Whether it is a list of names separated by commas, so that it cannot be more than the value of one header. */
function isHeaderValue(value: string): boolean {
  return /^[\w*, -]+$/.test(value);
}

interface SettingKey {
  readonly check: (value: string) => boolean;
  /** For the error. */
  readonly allowed: string;
  readonly default?: string;
  readonly help: string;
}

/** The daemon's own configuration keys. */
const known: Readonly<Record<string, SettingKey>> = {
  "core.https_address": {
    check: isAddress,
    allowed: "HOST, HOST:PORT, [IPV6]:PORT or :PORT",
    default: "none: the unix socket alone",
    help:
      "Address to listen at for clients over TLS: HOST, HOST:PORT, [IPV6]:PORT or :PORT; port 8443 where none is given",
  },
  "core.https_allowed_credentials": {
    check: (value) => /^(true|false|1|0|yes|no|on|off)$/i.test(value),
    allowed: "true or false",
    default: "false",
    help: "Whether a browser may send credentials with the requests of an allowed page",
  },
  "core.https_allowed_headers": {
    check: isHeaderValue,
    allowed: "a list of header names",
    help: "Headers that an allowed page may send, separated by commas",
  },
  "core.https_allowed_methods": {
    check: isHeaderValue,
    allowed: "a list of methods",
    help: "HTTP methods that an allowed page may use, separated by commas",
  },
  "core.https_allowed_origin": {
    check: isOrigin,
    allowed: '"*", or an origin such as https://ui.example:8443,',
    default: "none: pages of other sites are refused",
    help: "Origin of the web page that may use the API from a browser, such as `https://ui.example:8443`; `*` for any",
  },
  [passwordKey]: {
    check: () => true,
    allowed: "any text",
    default: "none: no client can add its own certificate",
    help: "Password with which a client adds its own certificate to the trusted ones; only its hash is stored",
  },
  "images.auto_update_interval": {
    check: (value) => /^\d+$/.test(value),
    allowed: "a number of hours",
    help: "For LXD's preseeds: images are not updated by themselves here, whatever it says",
  },
};

/** The keys a user may set. */
export function settingKeys(): Readonly<Record<string, ConfigKey>> {
  return Object.fromEntries(
    Object.entries(known).map(([key, { check, allowed, ...told }]) => [
      key,
      { ...told, check: (value: string) => check(value) ? undefined : allowed },
    ]),
  );
}

export class ServerSettings {
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

  /** @throws {LidoError} bad_request for an unknown key or an invalid value; nothing is changed then. */
  async replace(config: Config): Promise<void> {
    for (const [key, value] of Object.entries(config)) {
      const found = Object.hasOwn(known, key) ? known[key] : undefined;
      if (!key.startsWith("user.") && !found) {
        const allowed = allowedKeys(key, [...Object.keys(known), "user."]);
        // Without the value: it may be a secret under a mistyped name.
        throw new LidoError("bad_request", `Cannot set "${key}" (unknown key): ${allowed}`);
      }
      if (found && value !== "" && !found.check(value)) {
        throw new LidoError(
          "bad_request",
          `Cannot set "${key}"${
            key === passwordKey ? "" : ` to "${value}"`
          }: invalid value: ${found.allowed} is allowed`,
        );
      }
    }
    const kept = this.get(passwordKey), password = config[passwordKey] ?? "";
    // A client that changes another key sends the password's key back as it was shown.
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
