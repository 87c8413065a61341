import { Hono } from "hono";
import type { Config, Devices } from "../../api/types.ts";
import { isFalse } from "../config/instance.ts";

/** The part of an instance that the guest API shows. */
export interface Guest {
  readonly name: string;
  /** Expanded. */
  readonly config: Config;
  /** Expanded. */
  readonly devices: Devices;
}

/** The keys that a guest may read. */
export function isGuestKey(key: string): boolean {
  return key.startsWith("user.") || key.startsWith("cloud-init.");
}

/** Whether an instance has the guest API at all: `security.devlxd`, on unless it is switched off. */
export function hasGuestApi(config: Config): boolean {
  return !isFalse(config["security.devlxd"]);
}

/** The API on an instance's /dev/lxd/sock, for its own root: plain JSON and text without LXD's envelopes. LXD answers every method as
 * GET, and so does this. @param guest The instance as it is now; undefined when it was deleted. */
export function guestApi(guest: () => Guest | undefined): Hono {
  const app = new Hono();
  const configOf = (work: (guest: Guest) => Response): Response => {
    const found = guest();
    return found && hasGuestApi(found.config) ? work(found) : refusal(403, "not authorized");
  };
  app.all("/", () => json(["/1.0"]));
  app.all("/1.0", () => json({ state: "", api_version: "1.0", instance_type: "container", location: "none" }));
  app.all(
    "/1.0/config",
    () => configOf(({ config }) => json(Object.keys(config).filter(isGuestKey).map((key) => `/1.0/config/${key}`))),
  );
  app.all("/1.0/config/:key", (c) =>
    configOf(({ config }) => {
      const key = c.req.param("key");
      if (!isGuestKey(key)) return refusal(403, "not authorized");
      return Object.hasOwn(config, key) ? text(config[key]!) : refusal(404, "not found");
    }));
  app.all("/1.0/meta-data", () =>
    configOf(({ name, config }) => {
      const id = config["volatile.cloud-init.instance-id"] ?? "";
      return text(`#cloud-config\ninstance-id: ${id}\nlocal-hostname: ${name}\n${config["user.meta-data"] ?? ""}`);
    }));
  app.all("/1.0/devices", () => configOf(({ devices }) => json(devices)));
  // For nested LXDs; always refused, as it needs security.devlxd.images, a key that lido does not have.
  app.all("/1.0/images/:fingerprint/export", () => refusal(403, "not authorized"));
  app.notFound(() => refusal(404, "404 page not found"));
  app.onError(() => refusal(500, "internal error"));
  return app;
}

/** A refusal in LXD's form. */
export function refusal(status: number, reason: string): Response {
  return new Response(`${reason}\n`, {
    status,
    headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  });
}

function json(value: unknown): Response {
  return new Response(`${JSON.stringify(value)}\n`, { headers: { "content-type": "application/json" } });
}

function text(value: string): Response {
  return new Response(value, { headers: { "content-type": "application/octet-stream" } });
}
