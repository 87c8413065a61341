import type { Certificate } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { reasonOf, UsageError } from "../client/errors.ts";
import { render } from "../output/render.ts";
import { showYaml } from "../settings.ts";
import { type Verb, verb } from "../verb.ts";

export const verbs: Verb[] = [
  verb({
    words: "config trust list",
    aliases: ["config trust ls"],
    args: [],
    flags: { format: { short: "f", value: "format", initial: "table", summary: "csv, json, table, yaml or compact" } },
    summary: "List the clients that are trusted over the network",
    async run(io, _args, flags) {
      const raw = await io.client.get<Certificate[]>("/1.0/certificates?recursion=1");
      const { X509Certificate } = await import("node:crypto");
      io.out(
        await render(flags.format, {
          headers: ["TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE"],
          rows: raw.map(({ type, name, certificate, fingerprint }) => {
            const { subject, validFrom, validTo } = new X509Certificate(certificate);
            const commonName = /^CN=(.*)$/m.exec(subject ?? "")?.[1] ?? "";
            return [type, name, commonName, fingerprint.slice(0, 12), validFrom, validTo];
          }),
          raw,
          kind: "certificate",
        }),
      );
    },
  }),
  verb({
    words: "config trust show",
    args: ["fingerprint"],
    flags: {},
    summary: "Show a trusted client",
    async run(io, [fingerprint = ""]) {
      await showYaml(io, "certificate", await io.client.get<Certificate>(url`/1.0/certificates/${fingerprint}`));
    },
  }),
  verb({
    words: "config trust add",
    args: ["certificate"],
    flags: { name: { value: "name", initial: "", summary: "Name of the client (default: of the file)" } },
    summary: "Trust the client that has this certificate, a file in PEM",
    async run(io, [path = ""], flags) {
      const { readFileSync } = await import("node:fs");
      const { basename } = await import("node:path");
      let certificate: string;
      try {
        certificate = readFileSync(path, "utf8");
      } catch (error) {
        throw new UsageError(`Cannot read "${path}": ${reasonOf(error)}`);
      }
      const name = flags.name || basename(path);
      await io.client.request("POST", "/1.0/certificates", { type: "client", name, certificate });
    },
  }),
  verb({
    words: "config trust remove",
    aliases: ["config trust rm"],
    args: ["fingerprint"],
    flags: {},
    summary: "Trust a client no more",
    async run(io, [fingerprint = ""]) {
      await io.client.request("DELETE", url`/1.0/certificates/${fingerprint}`);
    },
  }),
];
