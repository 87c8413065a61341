/** Detachable sessions: the parts of `lido exec` that most calls do not need. */
import type { ExecSession, Operation } from "../../api/types.ts";
import { url } from "../client/client.ts";
import { UsageError } from "../client/errors.ts";
import { render } from "../output/render.ts";
import { shortDate } from "../output/units.ts";
import type { Io } from "../verb.ts";
import type { ExecRequest } from "./session.ts";

/** @param instance Default: the sessions of all instances. */
export async function listSessions(io: Io, format: string, instance?: string): Promise<void> {
  const filter = instance === undefined ? "" : url`&instance=${instance}`;
  const raw = await io.client.get<ExecSession[]>(`/1.0/exec-sessions?recursion=1${filter}`);
  io.out(
    await render(format, {
      headers: ["SESSION", "INSTANCE", "COMMAND", "TERMINAL", "STATE", "CREATED"],
      rows: raw.map((session) => [
        session.id,
        session.instance,
        session.command.join(" "),
        session.interactive ? "YES" : "NO",
        stateOf(session),
        shortDate(session.created_at),
      ]),
      raw,
      kind: "execSession",
    }),
  );
}

function stateOf(session: ExecSession): string {
  if (session.status === "Running") return session.attached ? "ATTACHED" : "DETACHED";
  return session.status === "Ended" ? `ENDED (${session.return ?? "?"})` : "LOST";
}

/** Starts a command without waiting for it, and prints its session's id. @returns The client's exit code. */
export async function startDetached(
  io: Io,
  instance: string,
  request: Omit<ExecRequest, "width" | "height">,
): Promise<number> {
  const { extra, ...body } = request;
  const envelope = await io.client.request("POST", url`/1.0/instances/${instance}/exec`, { ...body, ...extra });
  const operation = await io.client.waitQuietly(envelope.metadata as Operation);
  const { session, return: code } = operation.metadata ?? {};
  if (typeof session === "string") {
    io.out(`${session}\n`);
    return 0;
  }
  io.err(`Error: ${operation.err || "The daemon did not start the command"}\n`);
  return typeof code === "number" ? code : 1;
}

/** @throws {UsageError} When the flags exclude each other. */
export function checkFlags(flags: { list: boolean; attach: string | undefined; detach: boolean }): void {
  const given = [flags.list && "--list", flags.attach !== undefined && "--attach", flags.detach && "--detach"]
    .filter(Boolean);
  if (given.length > 1) throw new UsageError(`You can't pass ${given.join(" and ")} at the same time`);
}
