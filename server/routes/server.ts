import { X509Certificate } from "node:crypto";
import os from "node:os";
import { readFileSync } from "node:fs";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { notFound } from "../../api/errors.ts";
import { serverSchema } from "../../api/types.ts";
import { version } from "../../api/version.ts";
import { extensions } from "../../api/extensions.ts";
import type { Host } from "../../drivers/host/host.ts";
import type { Context } from "../context.ts";
import { fingerprintOf } from "../credentials/certificate.ts";
import { peerOfRequest } from "../http/peers.ts";
import { checkEtag, done, newApp, route, sync } from "./route.ts";

const tag = "server";
/** Secrets are shown as `true`, and clients send them back so. */
const settingSchema = z.union([z.string(), z.boolean(), z.number()]).transform(String);
const configBody = z.object({ config: z.record(z.string(), settingSchema).default({}) }).loose().meta({
  id: "ServerPut",
});

const projectSchema = z.object({
  name: z.string(),
  description: z.string(),
  config: z.record(z.string(), z.string()),
  used_by: z.array(z.string()),
}).meta({ id: "Project" });
const clusterSchema = z.object({
  server_name: z.string(),
  enabled: z.boolean(),
  member_config: z.array(z.unknown()),
}).meta({ id: "Cluster" });

/** @returns Empty when crun is not installed. */
async function crunVersion(host: Host): Promise<string> {
  const { stdout } = await host.run(["crun", "--version"]).catch(() => ({ stdout: "" }));
  return /^crun version (\S+)/.exec(stdout)?.[1] ?? "";
}

export function serverRoutes(context: Context): OpenAPIHono {
  const app = newApp();
  const { settings, pools, trust } = context;
  let known = "";
  const runtimeVersion = async () => known ||= await crunVersion(context.host);

  route(
    app,
    { method: "get", path: "/", summary: "The API's versions", tag, returns: z.array(z.string()) },
    ({ c }) => sync(c, ["/1.0"]),
  );

  route(app, {
    method: "get",
    path: "/1.0",
    summary: "The server, its settings and what it can do",
    tag,
    returns: serverSchema,
  }, async ({ c }) => {
    const isTrusted = trust.allows(peerOfRequest(c));
    const about = {
      api_extensions: extensions,
      api_status: "stable",
      api_version: "1.0",
      auth: isTrusted ? "trusted" : "untrusted",
      public: false,
      auth_methods: ["tls"],
    };
    if (!isTrusted) return sync(c, about);
    const https = context.https();
    const config = settings.all();
    const shown = { ...config, ...("core.trust_password" in config ? { "core.trust_password": true } : {}) };
    const supported = await pools.supported();
    const used = pools.usedDrivers();
    return sync(c, {
      ...about,
      config: shown,
      environment: {
        addresses: https ? [https.address] : [],
        architectures: [machine()],
        certificate: https?.certificate ?? "",
        certificate_fingerprint: https ? fingerprintOf(new X509Certificate(https.certificate).raw) : "",
        driver: "crun",
        driver_version: await runtimeVersion(),
        firewall: "none",
        kernel: "Linux",
        kernel_architecture: machine(),
        kernel_features: {},
        kernel_version: os.release(),
        lxc_features: {},
        os_name: osRelease().NAME ?? "",
        os_version: osRelease().VERSION_ID ?? "",
        project: "default",
        server: "lido",
        server_clustered: false,
        server_event_mode: "full-mesh",
        server_name: os.hostname(),
        server_pid: process.pid,
        server_version: version,
        storage: used.join(" | "),
        storage_version: used.map((name) => supported.find((one) => one.Name === name)?.Version ?? "").join(" | "),
        storage_supported_drivers: supported,
        storage_missing_drivers: await pools.missing(),
      },
    }, { etag: config });
  });

  for (const method of ["put", "patch"] as const) {
    route(
      app,
      { method, path: "/1.0", summary: "Change the server's settings", tag, body: configBody },
      async ({ c, body }) => {
        const previous = settings.all();
        checkEtag(c, previous);
        await settings.replace(method === "put" ? body.config : { ...previous, ...body.config });
        try {
          await context.listen();
        } catch (error) {
          await settings.replace(previous);
          throw error;
        }
        return done(c);
      },
    );
  }

  route(
    app,
    {
      method: "get",
      path: "/1.0/projects",
      summary: "The one project there is",
      tag,
      query: ["recursion"],
      returns: z.array(z.union([z.string(), projectSchema])),
    },
    (request) => sync(request.c, request.recursion() > 0 ? [project()] : ["/1.0/projects/default"]),
  );
  route(
    app,
    { method: "get", path: "/1.0/projects/{name}", summary: "A project", tag, returns: projectSchema },
    (request) => {
      if (request.param("name") !== "default") throw notFound("Project", request.param("name"));
      return sync(request.c, project());
    },
  );

  // LXD has these, lido does not: the lists are always empty.
  for (const none of ["networks", "network-acls", "cluster/members"]) {
    route(
      app,
      { method: "get", path: `/1.0/${none}`, summary: "Always empty", tag, returns: z.array(z.string()) },
      ({ c }) => sync(c, []),
    );
  }
  route(
    app,
    { method: "get", path: "/1.0/cluster", summary: "Not clustered", tag, returns: clusterSchema },
    ({ c }) => sync(c, { server_name: "", enabled: false, member_config: [] }),
  );

  route(
    app,
    { method: "get", path: "/internal/ready", summary: "Answers when the daemon is ready", tag: "internal" },
    ({ c }) => done(c),
  );
  route(app, { method: "put", path: "/internal/shutdown", summary: "End the daemon", tag: "internal" }, ({ c }) => {
    // Shut down after the answer was sent.
    setImmediate(context.shutdown);
    return done(c);
  });

  return app;
}

function project(): z.infer<typeof projectSchema> {
  return {
    name: "default",
    description: "Default lido project",
    config: {
      "features.images": "true",
      "features.networks": "true",
      "features.profiles": "true",
      "features.storage.volumes": "true",
    },
    used_by: [],
  };
}

/** As LXD and uname(1) name it. */
export function machine(): string {
  return { x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch;
}

let release: Record<string, string> | undefined;
function osRelease(): Record<string, string> {
  try {
    const lines = readFileSync("/etc/os-release", "utf8").split("\n").map((line) => /^(\w+)="?([^"]*)"?$/.exec(line));
    release ??= Object.fromEntries(lines.flatMap((match) => match ? [[match[1]!, match[2]!]] : []));
  } catch {
    release ??= {};
  }
  return release;
}
