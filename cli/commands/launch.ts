import type { Verb } from "../verb.ts";
export const verbs: Verb[] = [];
