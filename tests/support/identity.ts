/** Certificates of TLS clients, as openssl would make them: valid now, or not. */
import "reflect-metadata"; // what x509 stands on wants it first
import * as x509 from "@peculiar/x509";

export interface Identity {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
}

/** @param from When it begins to be valid, and `to` when it ends, in days from now. */
export async function identity(name: string, { from = -1, to = 1 } = {}): Promise<Identity> {
  const signingAlgorithm = { name: "ECDSA", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const day = 24 * 3600 * 1000;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    notBefore: new Date(Date.now() + from * day),
    notAfter: new Date(Date.now() + to * day),
    keys,
    signingAlgorithm,
  });
  const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return { cert: `${certificate.toString("pem")}\n`, key: `${x509.PemConverter.encode(key, "PRIVATE KEY")}\n` };
}
