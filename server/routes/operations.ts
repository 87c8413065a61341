import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { LidoError } from "../../api/errors.ts";
import { type Operation as OperationView, operationSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { done, newApp, route, sync } from "./route.ts";

const tag = "operations";
/** A timer's maximum, 2^31 - 1 ms; a longer timeout counts as none. */
const timeoutMaxSeconds = 2_147_483;

export function operationRoutes({ operations }: Pick<Context, "operations">): OpenAPIHono {
  const app = newApp();

  route(app, {
    method: "get",
    path: "/1.0/operations",
    summary: "List operations, by their status",
    tag,
    query: ["recursion"],
    returns: z.record(z.string(), z.array(z.union([z.string(), operationSchema]))),
  }, (request) => {
    const byStatus: Record<string, (string | OperationView)[]> = {};
    for (const operation of operations.list()) {
      const view = operation.view();
      (byStatus[view.status.toLowerCase()] ??= []).push(request.recursion() > 0 ? view : `/1.0/operations/${view.id}`);
    }
    return sync(request.c, byStatus);
  });

  route(app, {
    method: "get",
    path: "/1.0/operations/{id}",
    summary: "One operation",
    tag,
    returns: operationSchema,
  }, (request) => sync(request.c, operations.get(request.param("id")).view()));

  route(app, {
    method: "delete",
    path: "/1.0/operations/{id}",
    summary: "Cancel an operation",
    tag,
  }, (request) => {
    operations.get(request.param("id")).cancel();
    return done(request.c);
  });

  route(app, {
    method: "get",
    path: "/1.0/operations/{id}/wait",
    summary: "Wait until an operation ends, or for `timeout` seconds",
    tag,
    query: ["timeout"],
    returns: operationSchema,
  }, async (request) => {
    const operation = operations.get(request.param("id"));
    const timeout = request.query("timeout") ?? "-1";
    if (!/^-?\d{1,9}$/.test(timeout)) {
      throw new LidoError("bad_request", `Invalid timeout "${timeout}": seconds are allowed`);
    }
    await waitFor(operation.finished, Number(timeout), request.c.req.raw.signal);
    return sync(request.c, operation.view());
  });

  return app;
}

/** @param seconds Negative: as long as it takes. */
async function waitFor(finished: Promise<void>, seconds: number, gone: AbortSignal): Promise<void> {
  const over = Promise.withResolvers<void>();
  const timer = seconds < 0 || seconds > timeoutMaxSeconds ? undefined : setTimeout(over.resolve, seconds * 1000);
  const leave = () => over.resolve();
  gone.addEventListener("abort", leave);
  try {
    await Promise.race([finished, over.promise]);
  } finally {
    clearTimeout(timer);
    gone.removeEventListener("abort", leave);
  }
}
