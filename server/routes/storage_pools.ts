import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import {
  resourcesStoragePoolSchema,
  storagePoolHealthSchema,
  storagePoolPatchSchema,
  storagePoolPutSchema,
  storagePoolSchema,
  storagePoolsPostSchema,
} from "../../api/types.ts";
import type { Context } from "../context.ts";
import { checkEtag, created, done, newApp, route, sync } from "./route.ts";

const tag = "storage";
const one = "/1.0/storage-pools/{pool}";

export function storagePoolRoutes({ pools }: Pick<Context, "pools">): OpenAPIHono {
  const app = newApp();

  route(
    app,
    {
      method: "get",
      path: "/1.0/storage-pools",
      summary: "List storage pools",
      tag,
      query: ["recursion"],
      returns: z.array(z.union([z.string(), storagePoolSchema])),
    },
    (request) =>
      sync(
        request.c,
        request.recursion() > 0 ? pools.list() : pools.names().map((name) => `/1.0/storage-pools/${name}`),
      ),
  );

  route(app, {
    method: "post",
    path: "/1.0/storage-pools",
    summary: "Create a storage pool",
    tag,
    body: storagePoolsPostSchema,
  }, async ({ c, body }) => {
    await pools.create(body);
    return created(c, `/1.0/storage-pools/${body.name}`);
  });

  route(
    app,
    { method: "get", path: one, summary: "A storage pool", tag, returns: storagePoolSchema },
    ({ c, param }) => sync(c, pools.get(param("pool")), { etag: pools.etag(param("pool")) }),
  );

  for (const method of ["put", "patch"] as const) {
    route(
      app,
      {
        method,
        path: one,
        summary: "Change a storage pool",
        tag,
        body: method === "patch" ? storagePoolPatchSchema : storagePoolPutSchema,
      },
      async ({ c, param, body }) => {
        checkEtag(c, pools.etag(param("pool")));
        await pools.update(param("pool"), body, method === "patch");
        return done(c);
      },
    );
  }

  route(app, { method: "delete", path: one, summary: "Delete a storage pool", tag }, async ({ c, param }) => {
    await pools.delete(param("pool"));
    return done(c);
  });

  route(app, {
    method: "get",
    path: `${one}/resources`,
    summary: "Space and inodes of a storage pool",
    tag,
    returns: resourcesStoragePoolSchema,
  }, async ({ c, param }) => sync(c, await pools.resources(param("pool"))));

  route(app, {
    method: "get",
    path: `${one}/health`,
    summary: "Whether a storage pool is well, where its driver can tell",
    tag,
    returns: storagePoolHealthSchema,
  }, async ({ c, param }) => sync(c, await pools.health(param("pool"))));

  return app;
}
