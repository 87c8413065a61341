import { LidoError } from "../../api/errors.ts";

const nameMax = 63;

/** @param what "Storage pool" or "Storage volume", for the message. @throws {LidoError} bad_request. */
export function checkName(what: string, name: string): void {
  if (name === "") throw new LidoError("bad_request", `${what} name cannot be empty`);
  if (name.includes("/")) throw new LidoError("bad_request", `${what} names may not contain slashes`);
  const refuse = (why: string) => {
    throw new LidoError("bad_request", `Invalid ${what.toLowerCase()} name ${JSON.stringify(name)}: ${why}`);
  };
  if (name === "." || name === "..") refuse("it names a directory");
  if (!/^[A-Za-z0-9]/.test(name)) refuse("it must begin with a letter or a digit");
  if (!/^[\w.@:+-]+$/.test(name)) refuse("letters, digits and . _ - + @ : are allowed");
  if (name.length > nameMax) refuse(`it has ${name.length} characters, ${nameMax} are allowed`);
}
