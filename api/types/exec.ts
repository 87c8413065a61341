import { z } from "zod";
import { configSchema } from "./config.ts";

export const instanceExecPostSchema = z.object({
  command: z.array(z.string()),
  "wait-for-websocket": z.boolean().default(false),
  interactive: z.boolean().default(false),
  environment: configSchema.nullish().transform((environment) => environment ?? {}),
  width: z.number().int().default(0),
  height: z.number().int().default(0),
  "record-output": z.boolean().default(false),
  user: z.number().int().min(0).max(4294967294).default(0),
  group: z.number().int().min(0).max(4294967294).default(0),
  cwd: z.string().default(""),
  // Beyond LXD: a user from the container's own /etc/passwd, with its home, shell and groups.
  "user-name": z.string().default(""),
  login: z.boolean().default(false),
  /** Whether `group` applies although the user is given by name. */
  "group-set": z.boolean().default(false),
  "wait-output": z.boolean().default(false),
  /** Whether the command continues without its client, which can attach again. */
  detachable: z.boolean().default(false),
  /** Whether the command may start while its client still connects. */
  eager: z.boolean().default(false),
}).loose().meta({ id: "InstanceExecPost" });
export type InstanceExecPost = z.infer<typeof instanceExecPostSchema>;

/** Messages on an exec session's control websocket. */
export const execControlSchema = z.union([
  z.object({
    command: z.literal("window-resize"),
    args: z.object({ width: z.string().regex(/^\d{1,5}$/), height: z.string().regex(/^\d{1,5}$/) }),
  }).loose(),
  z.object({ command: z.literal("signal"), signal: z.number().int().min(1).max(64) }).loose(),
  z.object({ command: z.literal("detach") }).loose(),
]).meta({ id: "ExecControl" });

/** A command that was started detachable. */
export const execSessionSchema = z.object({
  id: z.string(),
  instance: z.string(),
  command: z.array(z.string()),
  interactive: z.boolean(),
  /** Ended: its output and exit code are kept for a client. Lost: the daemon stopped while it ran, which ended it. */
  status: z.enum(["Running", "Ended", "Lost"]),
  attached: z.boolean(),
  /** The exit code; null while it runs or when it is not known. */
  return: z.number().int().nullable(),
  created_at: z.string(),
  ended_at: z.string().nullable(),
}).meta({ id: "ExecSession" });
export type ExecSession = z.infer<typeof execSessionSchema>;
