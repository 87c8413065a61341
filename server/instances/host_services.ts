import { posix } from "node:path";
import { existsBeneath, isDirectoryBeneath, readBeneath, writeBeneath } from "../../drivers/host/files/beneath.ts";
import { makeDirectoriesBeneath } from "../../drivers/host/files/beneath_mkdir.ts";
import { readSubIds } from "../../drivers/host/mounts/idmap.ts";
import { shiftTree } from "../../drivers/host/ids/shift_tree.ts";
import type { InstanceServices } from "./services.ts";

/** What the instances need of this host: files in containers' trees, and owners. */
export const hostServices: Pick<InstanceServices, "files" | "ids"> = {
  files: {
    read: async (root, path) => {
      const bytes = readBeneath(root, path);
      return bytes && new TextDecoder().decode(bytes);
    },
    write: async (root, path, content, owner) => {
      makeDirectoriesBeneath(root, posix.dirname(path), owner);
      writeBeneath(root, path, content, owner);
    },
    exists: async (root, path) => existsBeneath(root, path),
    isDirectory: async (root, path) => isDirectoryBeneath(root, path),
  },
  ids: {
    ranges: readSubIds,
    shift: async (root, from, to, options) => (await shiftTree(root, from, to, options)).changed,
  },
};
