import { X509Certificate } from "node:crypto";
import { LidoError, notFound } from "../../api/errors.ts";
import type { Certificate } from "../../api/types.ts";
import type { Events } from "../events/events.ts";
import type { Peer } from "../http/peers.ts";
import type { Database, Row } from "../state/database.ts";
import type { ServerSettings } from "../state/settings.ts";
import type { Log } from "../log/failure.ts";
import { checkValidity, fingerprintOf, isValidNow, parseCertificate } from "../credentials/certificate.ts";
import { PasswordAttempts } from "./attempts.ts";
import { isPassword } from "../credentials/password.ts";

/** The certificates of clients that may do everything. A client is identified by its certificate's SHA-256 alone, never by a name in it. */
export class Trust {
  readonly #database: Database;
  readonly #events: Events;
  readonly #settings: ServerSettings;
  readonly #attempts: PasswordAttempts;

  constructor(options: { database: Database; events: Events; settings: ServerSettings; log: Log }) {
    this.#attempts = new PasswordAttempts({ log: options.log });
    this.#database = options.database;
    this.#events = options.events;
    this.#settings = options.settings;
  }

  /** Whether a client may do everything. A certificate that is not valid at this time is not trusted, as in LXD. */
  allows(peer: Peer): boolean {
    if (peer.kind === "local") return true;
    if (!peer.certificate) return false;
    const fingerprint = fingerprintOf(peer.certificate);
    const isKnown = this.#database.get("SELECT 1 FROM certificates WHERE fingerprint = ?", fingerprint) !== undefined;
    return isKnown && isValidNow(peer.certificate);
  }

  list(): Certificate[] {
    return this.#database.all("SELECT * FROM certificates ORDER BY fingerprint").map(view);
  }

  /** @param fingerprint Or a unique prefix of it. @throws {LidoError} not_found; bad_request when several certificates match. */
  get(fingerprint: string): Certificate {
    if (!/^[0-9a-f]{1,64}$/.test(fingerprint)) throw notFound("Certificate", fingerprint);
    const found = this.#database.all("SELECT * FROM certificates WHERE fingerprint GLOB ?", `${fingerprint}*`);
    if (found.length > 1) throw new LidoError("bad_request", "More than one certificate matches");
    if (!found[0]) throw notFound("Certificate", fingerprint);
    return view(found[0]);
  }

  /** @param certificate DER. @throws {LidoError} conflict when it is trusted already; bad_request when it is not valid at this time. */
  add(certificate: Uint8Array, name: string): Certificate {
    const fingerprint = fingerprintOf(certificate);
    if (this.#database.get("SELECT 1 FROM certificates WHERE fingerprint = ?", fingerprint)) {
      throw new LidoError("conflict", "Certificate already in trust store");
    }
    checkValidity(certificate);
    const pem = new X509Certificate(certificate).toString();
    this.#database.run(
      "INSERT INTO certificates (fingerprint, name, type, certificate, created_at) VALUES (?, ?, 'client', ?, ?)",
      fingerprint,
      name,
      pem,
      new Date().toISOString(),
    );
    this.#events.lifecycle("certificate-created", `/1.0/certificates/${fingerprint}`);
    return this.get(fingerprint);
  }

  rename(fingerprint: string, name: string): void {
    const certificate = this.get(fingerprint);
    this.#database.run("UPDATE certificates SET name = ? WHERE fingerprint = ?", name, certificate.fingerprint);
    this.#events.lifecycle("certificate-updated", `/1.0/certificates/${certificate.fingerprint}`);
  }

  remove(fingerprint: string): void {
    const certificate = this.get(fingerprint);
    this.#database.run("DELETE FROM certificates WHERE fingerprint = ?", certificate.fingerprint);
    this.#events.lifecycle("certificate-deleted", `/1.0/certificates/${certificate.fingerprint}`);
  }

  /** Adds a certificate at a client's request: a trusted client may add any certificate, any other its own, with the trust password.
   * @throws {LidoError} forbidden, without saying why; bad_request, conflict. */
  async request(peer: Peer, post: { name: string; certificate: string; password: string }): Promise<Certificate> {
    const isTrusted = this.allows(peer);
    if (!isTrusted && !await this.#isPassword(peer, post.password)) throw new LidoError("forbidden", "not authorized");
    const own = peer.kind === "tls" ? peer.certificate : undefined;
    const certificate = post.certificate !== "" && isTrusted ? parseCertificate(post.certificate) : own;
    if (!certificate) throw new LidoError("bad_request", "No client certificate provided");
    return this.add(certificate, post.name || nameIn(certificate));
  }

  async #isPassword(peer: Peer, password: string): Promise<boolean> {
    const stored = this.#settings.get("core.trust_password");
    if (stored === undefined || password === "") return false;
    const address = peer.kind === "tls" ? peer.address : undefined;
    return await this.#attempts.attempt(address ?? "unknown", () => isPassword(password, stored));
  }
}

function nameIn(certificate: Uint8Array): string {
  const subject = new X509Certificate(certificate).subject ?? "";
  return /^CN=(.*)$/m.exec(subject)?.[1] ?? fingerprintOf(certificate).slice(0, 12);
}

function view(row: Row): Certificate {
  return {
    name: String(row.name),
    type: "client",
    restricted: false,
    projects: [],
    certificate: String(row.certificate),
    fingerprint: String(row.fingerprint),
  };
}
