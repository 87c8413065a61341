/** What `nested.ts` and its thread say to one another. */

export type NestedRequest =
  | { readonly kind: "copy"; readonly source: string; readonly target: string; readonly readonly: boolean }
  | { readonly kind: "delete"; readonly path: string };

export interface NestedAnswer {
  /** Ids of what was deleted. */
  readonly ids?: readonly bigint[];
  readonly failure?: string;
}
