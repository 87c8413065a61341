import { messageOf } from "../../api/errors.ts";
import { closeFd } from "../host/process/process.ts";
import type { Consoles } from "./console/consoles.ts";
import type { HotPlug, PluggedContainer } from "./mounts/hot_plug.ts";
import type { IdMap } from "../host/id_map.ts";
import type { RuntimeLog } from "./runtime.ts";

/** Replaces the console of a container that has none, or whose console hung up because the console server and the daemon were both killed. Files open
 * on the old one stay hung up; a restarted getty gets the new one. A failure is logged: the container goes on without a console. */
export async function replaceConsole(
  container: PluggedContainer & { readonly idmap: IdMap | undefined },
  { consoles, hotPlug, log }: { consoles: Consoles; hotPlug: HotPlug; log: RuntimeLog },
): Promise<void> {
  const { name, idmap } = container;
  const target = "/dev/console";
  try {
    const { path, peer } = await consoles.open(name, idmap);
    closeFd(peer);
    // The old file vanished with its master, and nothing can be mounted over a deleted file.
    await hotPlug.detach(container, { source: "", target }, { lazy: true, processes: () => Promise.resolve([]) });
    await hotPlug.attach(container, { source: path, target, options: ["nosuid", "noexec"] }, idmap);
    log.warn({ container: name }, "replaced the console of a container, which had hung up");
  } catch (error) {
    log.warn({ container: name, error: messageOf(error) }, "could not replace the console of a container");
  }
}
