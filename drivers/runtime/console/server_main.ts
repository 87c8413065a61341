/** The console server as a separate program, for when there is no executable that contains it (`deno run`). */
import { serveConsoles } from "./server.ts";

serveConsoles();
