import type { Operation } from "../operations/operations.ts";
import type { ShiftProgress } from "./rootfs.ts";

/** Shows in an operation how many files a change of owners has behind it; LXD's key and words. */
export const progressOf =
  (operation: Operation, what: "container" | "volume" = "container"): ShiftProgress => (entries) =>
    operation.update({
      container_progress: `Remapping ${
        what === "volume" ? "storage volume" : "container filesystem"
      }: ${entries} files`,
      progress: { stage: "container_progress", processed: String(entries) },
    });
