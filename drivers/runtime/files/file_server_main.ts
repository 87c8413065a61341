/** The file server as a separate program, for when there is no executable that contains it (`deno run`). */
import { serveFiles } from "./file_server.ts";

serveFiles();
