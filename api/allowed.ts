/** The allowed keys, for the end of an error about an unknown key. */

/** Above this number, keys are listed by group, as `limits.*`. */
const mostNamed = 12;
/** The same for the keys of the unknown key's own group, which were probably meant. */
const mostOfGroup = 20;

/** @param key The unknown key. @param known The allowed keys; one that ends with a dot stands for all with that beginning, as `user.`.
 * @returns `"limits.cpu", "limits.memory" are allowed`: the keys of the same group or its subgroups, if there are any, else all keys or groups. */
export function allowedKeys(key: string, known: readonly string[]): string {
  const group = key.includes(".") ? key.slice(0, key.indexOf(".") + 1) : undefined;
  const near = known.filter((one) => group !== undefined && one !== group && one.startsWith(group));
  // Too many keys in one group are listed by subgroup, as `security.syscalls.*`.
  const within = new Set(near.map((one) => one.split(".").length > 2 ? `${one.split(".", 2).join(".")}.*` : one));
  const named = near.length > 0 && near.length <= mostOfGroup ? near : known.length <= mostNamed ? known : undefined;
  const shown = named?.map((one) => one.endsWith(".") ? `${one}*` : one) ??
    (near.length > 0 && within.size <= mostOfGroup ? [...within] : undefined) ??
    [...new Set(known.map((one) => one.includes(".") ? `${one.slice(0, one.indexOf("."))}.*` : one))];
  if (shown.length === 0) return "none is allowed";
  return `${[...shown].sort().join(", ")} ${shown.length === 1 && !shown[0]!.endsWith("*") ? "is" : "are"} allowed`;
}
