import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { foundPoolSchema, recoverPostSchema, recoverResultSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { newApp, route, sync } from "./route.ts";

const tag = "server";

/** The requests of `lxd recover`, and the unknown pools that the host seems to have. API extension `admin_recover`. */
export function recoverRoutes({ recover }: Pick<Context, "recover">): OpenAPIHono {
  const app = newApp();
  route(
    app,
    {
      method: "get",
      path: "/internal/recover/pools",
      summary: "Storage pools that are on this host and not known",
      tag,
      returns: z.array(foundPoolSchema),
    },
    async ({ c }) => sync(c, await recover.found()),
  );
  for (const [verb, summary] of [["validate", "Look for"], ["import", "Recover"]] as const) {
    route(
      app,
      {
        method: "post",
        path: `/internal/recover/${verb}`,
        summary: `${summary} instances and volumes that are in pools and not known`,
        tag,
        body: recoverPostSchema,
        returns: recoverResultSchema,
      },
      async ({ c, body }) => sync(c, await recover[verb](body)),
    );
  }
  return app;
}
