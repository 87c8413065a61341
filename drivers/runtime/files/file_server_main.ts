/** The file server as a program of its own, where there is no executable that has it (`deno run`). */
import { serveFiles } from "./file_server.ts";

serveFiles();
