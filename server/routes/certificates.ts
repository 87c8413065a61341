import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { LidoError } from "../../api/errors.ts";
import { certificatePutSchema, certificateSchema, certificatesPostSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { peerOfRequest } from "../http/peers.ts";
import { checkEtag, created, done, newApp, route, sync } from "./route.ts";

const tag = "certificates";
const list = "/1.0/certificates";
const one = `${list}/{fingerprint}`;

export function certificateRoutes({ trust }: Pick<Context, "trust">): OpenAPIHono {
  const app = newApp();

  route(
    app,
    {
      method: "get",
      path: list,
      summary: "List the trusted certificates",
      tag,
      query: ["recursion"],
      returns: z.array(z.string()).or(z.array(certificateSchema)),
    },
    ({ c, recursion }) => {
      const all = trust.list();
      return sync(c, recursion() > 0 ? all : all.map(({ fingerprint }) => `${list}/${fingerprint}`));
    },
  );
  route(
    app,
    {
      method: "post",
      path: list,
      summary: "Trust a certificate; a stranger asks for its own, with the trust password",
      tag,
      body: certificatesPostSchema,
    },
    async ({ c, body }) => {
      if (body.token) throw new LidoError("not_implemented", "Certificate add tokens aren't supported");
      if (body.type !== "client") throw new LidoError("bad_request", `Unknown request type ${body.type}`);
      if (body.restricted) throw new LidoError("not_implemented", "Restricted certificates aren't supported");
      const { fingerprint } = await trust.request(peerOfRequest(c), body);
      return created(c, `${list}/${fingerprint}`);
    },
  );
  route(
    app,
    { method: "get", path: one, summary: "A trusted certificate", tag, returns: certificateSchema },
    ({ c, param }) => {
      const certificate = trust.get(param("fingerprint"));
      return sync(c, certificate, { etag: certificate });
    },
  );
  for (const method of ["put", "patch"] as const) {
    route(
      app,
      { method, path: one, summary: "Rename a trusted certificate", tag, body: certificatePutSchema },
      ({ c, param, body }) => {
        checkEtag(c, trust.get(param("fingerprint")));
        if (body.name !== undefined) trust.rename(param("fingerprint"), body.name);
        return done(c);
      },
    );
  }
  route(
    app,
    { method: "delete", path: one, summary: "Trust a certificate no more", tag },
    ({ c, param }) => {
      trust.remove(param("fingerprint"));
      return done(c);
    },
  );

  return app;
}
