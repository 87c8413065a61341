import { createHash, X509Certificate } from "node:crypto";
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { LidoError } from "../../api/errors.ts";

const validMs = 10 * 365 * 24 * 3600 * 1000;

export interface KeyPair {
  /** PEM. */
  readonly certificate: string;
  readonly key: string;
}

/** The daemon's own certificate, `server.crt` and `server.key` in its directory as LXD's; created if missing. */
export async function serverCertificate(directory: string): Promise<KeyPair> {
  const paths = { certificate: join(directory, "server.crt"), key: join(directory, "server.key") };
  if (!existsSync(paths.certificate) || !existsSync(paths.key)) {
    const made = await makeCertificate();
    write(paths.key, made.key, 0o600);
    write(paths.certificate, made.certificate, 0o644);
  }
  chmodSync(paths.key, 0o600); // also if it was copied here with another mode
  return { certificate: readFileSync(paths.certificate, "utf8"), key: readFileSync(paths.key, "utf8") };
}

/** Writes the file as a whole or not at all, even if the daemon is killed. */
function write(path: string, text: string, mode: number): void {
  const partial = `${path}.partial`;
  writeFileSync(partial, text, { mode, flush: true });
  chmodSync(partial, mode);
  renameSync(partial, path);
}

/** Self-signed, ECDSA P-384 as LXD's: clients pin it. */
async function makeCertificate(): Promise<KeyPair> {
  await import("reflect-metadata"); // a dependency of x509 needs it to be loaded first
  const x509 = await import("@peculiar/x509");
  const signingAlgorithm = { name: "ECDSA", hash: "SHA-384" };
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-384" }, true, ["sign", "verify"]);
  const name = hostname();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ O: ["lido"] }, { CN: [`root@${name}`] }],
    notBefore: new Date(),
    notAfter: new Date(Date.now() + validMs),
    keys,
    signingAlgorithm,
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.SubjectAlternativeNameExtension([
        { type: "dns", value: name },
        { type: "ip", value: "127.0.0.1" },
        { type: "ip", value: "::1" },
      ]),
    ],
  });
  const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return { certificate: certificate.toString("pem") + "\n", key: x509.PemConverter.encode(key, "PRIVATE KEY") + "\n" };
}

/** @returns SHA-256 of a certificate's DER, 64 hex digits. */
export function fingerprintOf(der: Uint8Array): string {
  return createHash("sha256").update(der).digest("hex");
}

/** @param text PEM, or DER in base64 as LXD's clients send it. @returns Its DER. @throws {LidoError} bad_request when the text is no certificate. */
export function parseCertificate(text: string): Uint8Array {
  try {
    return new X509Certificate(text.includes("-----BEGIN") ? text : Buffer.from(text, "base64")).raw;
  } catch {
    throw new LidoError("bad_request", "Invalid certificate material: PEM, or DER in base64, is allowed");
  }
}

/** @param certificate DER. */
function validityOf(certificate: Uint8Array): { readonly from: number; readonly to: number } {
  const { validFrom, validTo } = new X509Certificate(certificate);
  return { from: Date.parse(validFrom), to: Date.parse(validTo) };
}

/** @param certificate DER. @param now As `Date.now()`. */
export function isValidNow(certificate: Uint8Array, now: number = Date.now()): boolean {
  const { from, to } = validityOf(certificate);
  return from <= now && now <= to;
}

/** @param certificate DER. @throws {LidoError} bad_request when it is not valid at this time, with LXD's texts. */
export function checkValidity(certificate: Uint8Array, now: number = Date.now()): void {
  const { from, to } = validityOf(certificate);
  if (now < from) throw new LidoError("bad_request", "The provided certificate isn't valid yet");
  // Written so that a time that cannot be parsed (NaN) counts as expired.
  if (!(now <= to)) throw new LidoError("bad_request", "The provided certificate is expired");
}
