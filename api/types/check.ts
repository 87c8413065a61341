import { z } from "zod";

export const checkPostSchema = z.object({ repair: z.boolean().default(false) }).loose().meta({ id: "CheckPost" });

/** A difference between the database and the host. */
export const checkProblemSchema = z.object({
  /** A path of the host, or "pool/NAME/TYPE/VOLUME". */
  subject: z.string(),
  problem: z.string(),
  can_repair: z.boolean(),
  repaired: z.boolean(),
}).meta({ id: "CheckProblem" });
export type CheckProblem = z.infer<typeof checkProblemSchema>;
