import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { profilePutSchema, profileSchema, profilesPostSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { detachOptions } from "./detach.ts";
import { checkEtag, created, done, newApp, route, sync } from "./route.ts";

const tag = "profiles";
const one = "/1.0/profiles/{name}";

export function profileRoutes({ profiles }: Pick<Context, "profiles">): OpenAPIHono {
  const app = newApp();

  route(
    app,
    {
      method: "get",
      path: "/1.0/profiles",
      summary: "List profiles",
      tag,
      query: ["recursion"],
      returns: z.array(z.union([z.string(), profileSchema])),
    },
    (request) =>
      sync(
        request.c,
        request.recursion() > 0 ? profiles.list() : profiles.names().map((name) => `/1.0/profiles/${name}`),
      ),
  );

  route(
    app,
    { method: "post", path: "/1.0/profiles", summary: "Create a profile", tag, body: profilesPostSchema },
    ({ c, body }) => {
      profiles.create(body);
      return created(c, `/1.0/profiles/${body.name}`);
    },
  );

  route(
    app,
    { method: "get", path: one, summary: "A profile", tag, returns: profileSchema },
    ({ c, param }) => sync(c, profiles.get(param("name")), { etag: profiles.etag(param("name")) }),
  );

  for (const method of ["put", "patch"] as const) {
    route(
      app,
      { method, path: one, summary: "Change a profile", tag, query: ["detach"], body: profilePutSchema },
      async ({ c, param, body, query }) => {
        checkEtag(c, profiles.etag(param("name")));
        const notes = await profiles.update(param("name"), body, method === "patch", detachOptions(query("detach")));
        return notes.length === 0 ? done(c) : sync(c, { notes });
      },
    );
  }

  route(app, {
    method: "post",
    path: one,
    summary: "Rename a profile",
    tag,
    body: z.object({ name: z.string() }).loose().meta({ id: "ProfilePost" }),
  }, ({ c, param, body }) => {
    profiles.rename(param("name"), body.name);
    return created(c, `/1.0/profiles/${body.name}`);
  });

  route(app, { method: "delete", path: one, summary: "Delete a profile", tag }, ({ c, param }) => {
    profiles.delete(param("name"));
    return done(c);
  });

  return app;
}
