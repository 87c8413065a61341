/** @param address As a socket has it.
 * @returns The unit by which connections are counted, about one subscriber: an IPv4 address, or an IPv6 /64 network. */
export function networkOf(address: string): string {
  const plain = address.replace(/%.*$/, "").toLowerCase();
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(plain);
  if (mapped) return mapped[1]!;
  if (!plain.includes(":")) return plain;
  const [head = "", tail] = plain.split("::");
  const groups = (text: string | undefined) => text ? text.split(":") : [];
  const first = groups(head), last = groups(tail);
  const zeros = tail === undefined ? [] : new Array(Math.max(0, 8 - first.length - last.length)).fill("0");
  return `${[...first, ...zeros, ...last].slice(0, 4).join(":")}::/64`;
}
