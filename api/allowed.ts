/** What may stand in place of a key that is unknown, for an error's end. */

/** Above so many, keys are given by their groups, as `limits.*`. */
const mostNamed = 12;
/** The same for those of one group, which are what was meant. */
const mostOfGroup = 20;

/** @param key The unknown one. @param known All that are allowed; one that ends with a dot stands for all that begin so, as `user.`.
 * @returns `"limits.cpu", "limits.memory" are allowed`: the keys of the same group, or the groups in it, when there are such, else all, or their groups. */
export function allowedKeys(key: string, known: readonly string[]): string {
  const group = key.includes(".") ? key.slice(0, key.indexOf(".") + 1) : undefined;
  const near = known.filter((one) => group !== undefined && one !== group && one.startsWith(group));
  // Too many of one group are given by the groups in it, as `security.syscalls.*`.
  const within = new Set(near.map((one) => one.split(".").length > 2 ? `${one.split(".", 2).join(".")}.*` : one));
  const named = near.length > 0 && near.length <= mostOfGroup ? near : known.length <= mostNamed ? known : undefined;
  const shown = named?.map((one) => one.endsWith(".") ? `${one}*` : one) ??
    (near.length > 0 && within.size <= mostOfGroup ? [...within] : undefined) ??
    [...new Set(known.map((one) => one.includes(".") ? `${one.slice(0, one.indexOf("."))}.*` : one))];
  if (shown.length === 0) return "none is allowed";
  return `${[...shown].sort().join(", ")} ${shown.length === 1 && !shown[0]!.endsWith("*") ? "is" : "are"} allowed`;
}
