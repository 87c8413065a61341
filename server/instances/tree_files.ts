import { posix } from "node:path";
import { existsBeneath, readBeneath, writeBeneath } from "../../drivers/host/beneath.ts";
import { makeDirectoriesBeneath } from "../../drivers/host/beneath_mkdir.ts";
import type { TreeFiles } from "./ports.ts";

/** Files in containers' trees, on this host. */
export const treeFiles: TreeFiles = {
  read: async (root, path) => {
    const bytes = readBeneath(root, path);
    return bytes && new TextDecoder().decode(bytes);
  },
  write: async (root, path, content, owner) => {
    makeDirectoriesBeneath(root, posix.dirname(path), owner);
    writeBeneath(root, path, content, owner);
  },
  exists: async (root, path) => existsBeneath(root, path),
};
