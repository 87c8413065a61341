import type { OpenAPIHono } from "@hono/zod-openapi";
import { configurationMetadataSchema } from "../../api/types.ts";
import { driverKinds } from "../../drivers/storage/registry.ts";
import { configurationMetadata } from "../metadata/configuration.ts";
import { newApp, route, sync } from "./route.ts";

/** The configuration keys, in the format of later LXDs. */
export function metadataRoutes(): OpenAPIHono {
  const app = newApp();
  route(
    app,
    {
      method: "get",
      path: "/1.0/metadata/configuration",
      summary: "The configuration keys of instances, devices, pools, volumes and the server",
      tag: "server",
      returns: configurationMetadataSchema,
    },
    ({ c }) => sync(c, configurationMetadata(driverKinds.values())),
  );
  return app;
}
