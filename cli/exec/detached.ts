import type { Io } from "../verb.ts";
export async function listSessions(_io: Io, _instance?: string): Promise<number> {
  return 1;
}
export async function attachSession(_io: Io, _id: string, _n: boolean): Promise<number> {
  return 1;
}
export async function startDetached(_io: Io, _i: string, _r: object): Promise<number> {
  return 1;
}
