import type { OpenAPIHono } from "@hono/zod-openapi";
import { snapshotGroupPostSchema } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { background, newApp, route } from "./route.ts";

/** Beyond LXD: API extension `storage_volumes_snapshot_group`. */
export function snapshotGroupRoutes({ snapshotGroups }: Pick<Context, "snapshotGroups">): OpenAPIHono {
  const app = newApp();
  route(app, {
    method: "post",
    path: "/1.0/storage-snapshot-groups",
    summary: "Take snapshots of several custom volumes at one moment, all or none",
    tag: "storage volumes",
    body: snapshotGroupPostSchema,
  }, ({ c, body }) => background(c, snapshotGroups.create(body)));
  return app;
}
