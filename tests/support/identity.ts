/** Certificates of TLS clients, like those that openssl makes; valid now, or not. */
import "reflect-metadata"; // must be imported before @peculiar/x509
import * as x509 from "@peculiar/x509";

export interface Identity {
  /** PEM, as `key`. */
  readonly cert: string;
  readonly key: string;
}

/** @param from Beginning of its validity, `to` its end, in days from now. */
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
