/** Prints the API's document, made from the very routes that are served: `npm run openapi`. */
import { version } from "../api/version.ts";
import type { Context } from "./context.ts";
import { makeApp } from "./routes/app.ts";

// Routes are declared without a service being called, so none is needed.
const app = makeApp({} as Context);
const document = app.getOpenAPI31Document({
  openapi: "3.1.0",
  info: {
    title: "lido",
    version,
    description: "LXD's REST API as lido serves it, on a unix socket and over mutual TLS.",
    license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
  },
});
process.stdout.write(JSON.stringify(document, null, 2) + "\n");
