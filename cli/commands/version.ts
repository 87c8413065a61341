import type { Server } from "../../api/types.ts";
import { verb } from "../verb.ts";
import { version } from "../version.ts";

export const verbs = [verb({
  words: "version",
  args: [],
  flags: {},
  summary: "Show the versions of client and daemon",
  async run(io) {
    let server: string;
    try {
      server = (await io.client.get<Server>("/1.0")).environment.server_version;
    } catch {
      server = "unreachable";
    }
    io.out(`Client version: ${version}\nServer version: ${server}\n`);
  },
})];
