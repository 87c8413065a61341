import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { checkPostSchema, checkProblemSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { newApp, route, sync } from "./route.ts";

/** Whether the database and the host agree. Beyond LXD: API extension `admin_check`. */
export function checkRoutes({ check }: Pick<Context, "check">): OpenAPIHono {
  const app = newApp();
  route(
    app,
    {
      method: "post",
      path: "/1.0/check",
      summary: "Compare the database with the host, and mend what can be mended without losing data",
      tag: "server",
      body: checkPostSchema,
      returns: z.array(checkProblemSchema),
    },
    async ({ c, body }) => sync(c, await check.run(body.repair)),
  );
  return app;
}
