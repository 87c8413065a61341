/** Streams name subvolumes by UUID: their own, what they are based on, what they clone from. `btrfs receive` looks for these among all that were ever
 * received in the filesystem, before it thinks of the subvolume that it is making; and a container may give its subvolumes whatever UUID of
 * a received one. So a stream that came with a UUID of another tenant's would read that one's files, and a volume could be based on what another had
 * prepared for it. Here each gets a name that nobody knows, and can name nothing else.
 * @see process_clone() and process_snapshot() in btrfs-progs' cmds/receive.c, BTRFS_IOC_SET_RECEIVED_SUBVOL */
import { randomBytes } from "node:crypto";
import { attribute, attributesOf, command, eachCommand, hex, kindOf, seal } from "./stream_format.ts";

/** @param base UUID of the subvolume that the stream may be based on, by which it can be found. @returns The stream with a new UUID for its
 * subvolume. @throws {Error} When it names another one. */
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
