import { z } from "zod";

export const instanceConsolePostSchema = z.object({
  /** "console"; any other word is refused with LXD's text. */
  type: z.string().default(""),
  /** Size of the client's window, in characters; 0 does not change the console's size. */
  width: z.number().int().min(0).max(65535).default(0),
  height: z.number().int().min(0).max(65535).default(0),
}).loose().meta({ id: "InstanceConsolePost" });
export type InstanceConsolePost = z.infer<typeof instanceConsolePostSchema>;
