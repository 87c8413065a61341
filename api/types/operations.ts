import { z } from "zod";

export const operationSchema = z.object({
  id: z.string(),
  class: z.enum(["task", "websocket", "token"]),
  description: z.string(),
  created_at: z.string(),
  updated_at: z.string(),
  status: z.string(),
  status_code: z.number().int(),
  resources: z.record(z.string(), z.array(z.string())),
  metadata: z.record(z.string(), z.unknown()).nullable(),
  may_cancel: z.boolean(),
  err: z.string(),
  location: z.string(),
}).meta({ id: "Operation" });
export type Operation = z.infer<typeof operationSchema>;

export const eventSchema = z.object({
  type: z.enum(["lifecycle", "logging", "operation"]),
  timestamp: z.string(),
  metadata: z.record(z.string(), z.unknown()),
  location: z.string().optional(),
  project: z.string().optional(),
}).meta({ id: "Event" });
export type Event = z.infer<typeof eventSchema>;
