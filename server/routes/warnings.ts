import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { notFound } from "../../api/errors.ts";
import { warningSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { newApp, route, sync } from "./route.ts";

const tag = "server";

/** The present warnings, in LXD's format. */
export function warningRoutes({ poolWatch, resources }: Pick<Context, "poolWatch" | "resources">): OpenAPIHono {
  const app = newApp();
  const list = () => [...poolWatch.list(), ...resources.warnings()];
  route(
    app,
    {
      method: "get",
      path: "/1.0/warnings",
      summary: "What needs attention: thin pools that run full, LXCFS that has ended",
      tag,
      query: ["recursion"],
      returns: z.array(z.union([z.string(), warningSchema])),
    },
    (request) => {
      const warnings = list();
      return sync(
        request.c,
        request.recursion() > 0 ? warnings : warnings.map(({ uuid }) => `/1.0/warnings/${uuid}`),
      );
    },
  );
  route(
    app,
    { method: "get", path: "/1.0/warnings/{uuid}", summary: "One warning", tag, returns: warningSchema },
    ({ c, param }) => {
      const found = list().find(({ uuid }) => uuid === param("uuid"));
      if (!found) throw notFound("Warning", param("uuid"));
      return sync(c, found);
    },
  );
  return app;
}
