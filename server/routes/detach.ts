import { LidoError } from "../../api/errors.ts";
import type { UpdateOptions } from "../instances/update.ts";

/** @param value Of `?detach=`: "lazy" detaches a disk in use, which is unmounted when its last user closes it; without it that is refused.
 * @throws {LidoError} bad_request for anything else. */
export function detachOptions(value: string | undefined): UpdateOptions {
  if (value === undefined) return {};
  if (value !== "lazy") throw new LidoError("bad_request", `Invalid detach "${value}": only "lazy" is allowed`);
  return { lazy: true };
}
