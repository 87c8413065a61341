import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { execSessionSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { background, done, newApp, route, sync } from "./route.ts";

const tag = "exec-sessions";
const list = "/1.0/exec-sessions";
const one = `${list}/{id}`;

/** Detachable sessions. Beyond LXD: API extension `exec_sessions`. */
export function execSessionRoutes({ exec, execSessions }: Pick<Context, "exec" | "execSessions">): OpenAPIHono {
  const app = newApp();

  route(
    app,
    {
      method: "get",
      path: list,
      summary: "List the sessions that can be attached to, of an `instance` or all",
      tag,
      query: ["instance", "recursion"],
      returns: z.array(z.string()).or(z.array(execSessionSchema)),
    },
    ({ c, query, recursion }) => {
      const sessions = execSessions.list(query("instance"));
      return sync(c, recursion() > 0 ? sessions : sessions.map(({ id }) => `${list}/${id}`));
    },
  );
  route(
    app,
    { method: "get", path: one, summary: "A session", tag, returns: execSessionSchema },
    ({ c, param }) => sync(c, execSessions.show(param("id"))),
  );
  route(
    app,
    { method: "post", path: `${one}/attach`, summary: "Come back to a session, by websockets as for exec", tag },
    ({ c, param }) => background(c, exec.attach(param("id"))),
  );
  route(
    app,
    { method: "delete", path: one, summary: "Kill a session's command and forget the session", tag },
    async ({ c, param }) => {
      await execSessions.delete(param("id"));
      return done(c);
    },
  );

  return app;
}
