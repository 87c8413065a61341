/** The console server as a program of its own, where there is no executable that has it (`deno run`). */
import { serveConsoles } from "./server.ts";

serveConsoles();
