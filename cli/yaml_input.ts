/** YAML written by people. */
import { UsageError } from "./client/errors.ts";

/** Fields whose values are all text, whatever YAML would read: `boot.autostart: true`, `limits.cpu: 2`, `initial.mode: 0755`. */
const textual = new Set(["config", "devices", "properties"]);

/** @param raw The same value, with every scalar as it was written. */
function withTexts(value: unknown, raw: unknown, isText: boolean): unknown {
  if (Array.isArray(value)) return value.map((item, index) => withTexts(item, (raw as unknown[])[index], isText));
  if (value !== null && typeof value === "object") {
    const written = raw as Record<string, unknown>;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, withTexts(item, written[key], isText || textual.has(key))]),
    );
  }
  if (!isText || typeof value === "string") return value;
  return value === null ? "" : String(raw);
}

/** @param failure Beginning of the error text. @throws {UsageError} If the text is not YAML, or not a map. */
export async function yamlMap(text: string, failure = "Config parsing error"): Promise<Record<string, unknown>> {
  const { parse } = await import("yaml");
  let value: unknown, raw: unknown;
  try {
    value = parse(text);
    raw = parse(text, { schema: "failsafe" });
  } catch (error) {
    throw new UsageError(`${failure}: ${(error as Error).message.split("\n")[0]!.replace(/:$/, "")}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UsageError(`${failure}: a YAML map is allowed`);
  }
  const { config, devices, properties, ...rest } = withTexts(value, raw, false) as Record<string, unknown>;
  // `config:` without a value is an empty map.
  const maps = Object.entries({ config, devices, properties }).filter(([key]) => key in value);
  return { ...rest, ...Object.fromEntries(maps.map(([key, map]) => [key, map === "" ? {} : map])) };
}
