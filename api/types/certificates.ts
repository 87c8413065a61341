import { z } from "zod";

export const certificateSchema = z.object({
  name: z.string(),
  type: z.literal("client"),
  restricted: z.boolean(),
  projects: z.array(z.string()),
  /** PEM. */
  certificate: z.string(),
  /** SHA-256 of its DER, in hex. */
  fingerprint: z.string(),
}).meta({ id: "Certificate" });
export type Certificate = z.infer<typeof certificateSchema>;

export const certificatesPostSchema = z.object({
  name: z.string().max(255).default(""),
  type: z.string().default("client"),
  /** DER in base64, or PEM; if empty, the certificate of the client's connection. */
  certificate: z.string().default(""),
  password: z.string().default(""),
  token: z.boolean().default(false),
  restricted: z.boolean().default(false),
}).loose().meta({ id: "CertificatesPost" });

export const certificatePutSchema = z.object({ name: z.string().min(1).max(255).optional() }).loose()
  .meta({ id: "CertificatePut" });
