/** Streams name subvolumes by UUID: their own, their base, the ones they clone from. `btrfs receive` looks these up among all subvolumes ever
 * received in the filesystem, before the one that it is making; and a container can give its subvolumes the UUID of any received one. So a
 * foreign stream with the UUID of another tenant's subvolume would read that tenant's files, and a volume could be based on a subvolume that
 * another tenant prepared. Here each stream gets a random UUID, and cannot refer to any other subvolume than its base.
 * @see process_clone() and process_snapshot() in btrfs-progs' cmds/receive.c, BTRFS_IOC_SET_RECEIVED_SUBVOL */
import { randomBytes } from "node:crypto";
import { attribute, attributesOf, command, eachCommand, hex, kindOf, seal } from "./stream_format.ts";

/** @param base UUID by which `btrfs receive` finds the subvolume that the stream may be based on. @returns The stream with a new UUID for its
 * subvolume. @throws {Error} When it refers to another subvolume. */
export function withOwnNames(
  stream: AsyncIterable<Uint8Array>,
  base: Uint8Array | undefined,
): AsyncGenerator<Uint8Array> {
  const known = new Map<string, Uint8Array>();
  const knownAs = (uuid: Uint8Array | undefined, refusal: string): Uint8Array => {
    const found = known.get(hex(uuid));
    if (!found) throw new Error(refusal);
    return found;
  };
  return eachCommand(stream, (original, version) => {
    const kind = kindOf(original);
    if (kind !== command.subvolume && kind !== command.snapshot && kind !== command.clone) return original;
    const bytes = Uint8Array.from(original);
    const attributes = attributesOf(bytes, version);
    const uuid = attributes.get(attribute.uuid), source = attributes.get(attribute.cloneUuid);
    if (kind === command.clone) source?.set(knownAs(source, "it clones from another volume"));
    else {
      if (known.size > 0) throw new Error("it holds more than one subvolume");
      if (uuid?.length !== uuidBytes) throw new Error("the subvolume's UUID is missing");
      if (kind === command.snapshot) {
        if (!base || source?.length !== uuidBytes) throw new Error("it is based on another volume");
        known.set(hex(source), base);
        source.set(base);
      }
      known.set(hex(uuid), randomBytes(uuidBytes));
      uuid.set(known.get(hex(uuid))!);
    }
    seal(bytes);
    return bytes;
  });
}

const uuidBytes = 16;
