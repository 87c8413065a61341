/** lido as a library; run as a program, it is the same as the executable.
 *
 * @example
 * import { connect } from "./mod.ts";
 * await using lido = await connect();
 * const process = await lido.instance("c1").exec(["uname", "-a"]);
 * console.log(await new Response(process.stdout).text(), await process.status);
 */
export { LidoError } from "./api/errors.ts";
export * from "./api/types.ts";
export { version } from "./api/version.ts";
export { Client, type Envelope } from "./cli/client/client.ts";
export { type Endpoint, localEndpoint } from "./cli/client/endpoint.ts";
export { ApiError, ConnectionError } from "./cli/client/errors.ts";
export { connect, type CreateOptions, InstanceHandle, Lido } from "./cli/library/lido.ts";
export { type ExecOptions, ExecProcess, type ExecStatus } from "./cli/library/process.ts";
export type { Host } from "./drivers/host/host.ts";
export type * from "./drivers/storage/driver.ts";

if (import.meta.main) await (await import("./cli/main.ts")).runMain();
