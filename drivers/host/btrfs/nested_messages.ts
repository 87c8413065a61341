/** Messages between `nested.ts` and its thread. */

export type NestedRequest =
  | { readonly kind: "copy"; readonly source: string; readonly target: string; readonly readonly: boolean }
  | { readonly kind: "delete"; readonly path: string };

export interface NestedAnswer {
  /** Ids of the deleted subvolumes. */
  readonly ids?: readonly bigint[];
  readonly failure?: string;
}
