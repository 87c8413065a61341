import type { Context as HonoContext } from "hono";
import type { Logger } from "pino";
import { clientOfRequest } from "./peers.ts";
import { asClient, currentClient } from "../log/client.ts";
import { describeFailure, isUnexpected } from "../log/failure.ts";

/** Answers a request and logs it: a synchronous change in one line, a read at level debug; an operation logs itself. No query, header or body is
 * logged: they may hold secrets. */
export async function logged(log: Logger, c: HonoContext, next: () => Promise<void>): Promise<void> {
  const started = performance.now();
  let identity: ReturnType<typeof clientOfRequest> | undefined;
  await asClient(() => identity ??= clientOfRequest(c), async () => {
    const { method, path } = c.req;
    c.set("bodyFailed", (error) => {
      const told = { ...currentClient(), method, path, ...describeFailure(error) };
      if (isUnexpected(error)) log.error(told, "answer broken off");
      else log.warn(told, "answer broken off");
    });
    await next();
    const { status } = c.res;
    const isRead = method === "GET" || method === "HEAD" || status === 202;
    if (c.error === undefined && isRead && !log.isLevelEnabled("debug")) return;
    const made = c.res.headers.get("location");
    const fields = {
      ...currentClient(),
      method,
      path,
      ...(made !== null && status === 201 ? { made } : {}),
      status,
      ms: Math.round(performance.now() - started),
    };
    if (c.error === undefined) return isRead ? log.debug(fields, "request") : log.info(fields, "request");
    const told = { ...fields, ...describeFailure(c.error) };
    if (isUnexpected(c.error)) log.error(told, "request failed");
    else if (status === 403) log.warn(told, "request refused");
    else if (isRead) log.debug(told, "request failed");
    else log.info(told, "request failed");
  });
}
