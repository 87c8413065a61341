import { messageOf } from "../../api/errors.ts";
import { closeFd } from "../host/process/process.ts";
import type { Consoles } from "./console/consoles.ts";
import type { HotPlug, PluggedContainer } from "./mounts/hot_plug.ts";
import type { IdMap } from "../host/id_map.ts";
import type { RuntimeLog } from "./runtime.ts";

/** For a container whose console hung up with the console server and an earlier daemon, or that never had one: another one in its place. What is
 * open there stays hung up; a getty that is started anew gets this one. A failure is logged: the container goes on without. */
export async function replaceConsole(
  container: PluggedContainer & { readonly idmap: IdMap | undefined },
  { consoles, hotPlug, log }: { consoles: Consoles; hotPlug: HotPlug; log: RuntimeLog },
): Promise<void> {
  const { name, idmap } = container;
  const target = "/dev/console";
  try {
    const { path, peer } = await consoles.open(name, idmap);
    closeFd(peer);
    // Its file went with the master, and nothing can be mounted over one that is deleted.
    await hotPlug.detach(container, { source: "", target }, { lazy: true, processes: () => Promise.resolve([]) });
    await hotPlug.attach(container, { source: path, target, options: ["nosuid", "noexec"] }, idmap);
    log.warn({ container: name }, "replaced the console of a container, which had hung up");
  } catch (error) {
    log.warn({ container: name, error: messageOf(error) }, "could not replace the console of a container");
  }
}
