import { z } from "zod";

/** Resolves the nulls in a request as LXD's decoder does: a field that is null is absent, a setting or a list element that is null is
 * empty. A null stays where the schema allows one (`profiles: null` is not `profiles: []`).
 * @param value Parsed JSON; is not changed. @returns The value to check by the schema. @see encoding/json of Go, Unmarshal */
export function withoutNulls(schema: z.ZodType, value: unknown): unknown {
  const shape = innermost(schema);
  if (shape instanceof z.ZodArray) {
    if (!Array.isArray(value)) return value;
    return value.map((item) => entry(shape.element as z.ZodType, item));
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  if (shape instanceof z.ZodObject) {
    const fields = shape.shape as Record<string, z.ZodType>;
    return Object.fromEntries(
      Object.entries(value).flatMap(([name, field]) => {
        const declared = Object.hasOwn(fields, name) ? fields[name]! : undefined;
        if (field === null) return declared?.safeParse(null).success ? [[name, null]] : [];
        return [[name, declared ? withoutNulls(declared, field) : field]];
      }),
    );
  }
  if (shape instanceof z.ZodRecord) {
    const element = shape.valueType as z.ZodType;
    return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, entry(element, field)]));
  }
  return value;
}

/** An entry of a map or a list that is null is empty: in a PATCH of a map it unsets the key. */
function entry(schema: z.ZodType, value: unknown): unknown {
  if (value !== null) return withoutNulls(schema, value);
  if (schema.safeParse(null).success) return null;
  return ["", {}].find((empty) => schema.safeParse(empty).success) ?? null;
}

/** The schema inside defaults, options and transformations. */
function innermost(schema: z.ZodType): z.ZodType {
  if (
    schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable
  ) return innermost(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodPipe) return innermost(schema.in as z.ZodType);
  return schema;
}
