import { z } from "zod";

export const serverSchema = z.object({
  api_extensions: z.array(z.string()),
  api_status: z.string(),
  api_version: z.string(),
  auth: z.enum(["trusted", "untrusted"]),
  public: z.boolean(),
  auth_methods: z.array(z.string()),
  config: z.record(z.string(), z.unknown()),
  environment: z.object({
    addresses: z.array(z.string()),
    architectures: z.array(z.string()),
    certificate: z.string(),
    certificate_fingerprint: z.string(),
    driver: z.string(),
    driver_version: z.string(),
    firewall: z.string(),
    kernel: z.string(),
    kernel_architecture: z.string(),
    kernel_features: z.record(z.string(), z.string()).nullable(),
    kernel_version: z.string(),
    lxc_features: z.record(z.string(), z.string()).nullable(),
    os_name: z.string(),
    os_version: z.string(),
    project: z.string(),
    server: z.string(),
    server_clustered: z.boolean(),
    server_name: z.string(),
    server_pid: z.number().int(),
    server_version: z.string(),
    storage: z.string(),
    storage_version: z.string(),
    storage_supported_drivers: z.array(
      z.object({ Name: z.string(), Version: z.string(), Remote: z.boolean() }).loose(),
    ),
    /** Ours: the drivers that this host lacks, why, and the Debian packages that bring them. */
    storage_missing_drivers: z.array(
      z.object({ Name: z.string(), Reason: z.string(), Packages: z.array(z.string()) }),
    ),
  }).loose(),
}).meta({ id: "Server" });
export type Server = z.infer<typeof serverSchema>;

export const statusCodes = {
  100: "Operation created",
  101: "Started",
  102: "Stopped",
  103: "Running",
  104: "Cancelling",
  105: "Pending",
  106: "Starting",
  107: "Stopping",
  108: "Aborting",
  109: "Freezing",
  110: "Frozen",
  111: "Thawed",
  112: "Error",
  113: "Ready",
  200: "Success",
  400: "Failure",
  401: "Cancelled",
} as const;
export type StatusCode = keyof typeof statusCodes;
