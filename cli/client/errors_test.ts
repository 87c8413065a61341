import assert from "node:assert/strict";
import { reasonOf } from "./errors.ts";

Deno.test("a system error is told in words, never by its code alone where anybody has words for it", () => {
  const failure = (code: string, message: string) => Object.assign(new Error(message), { code });
  assert.equal(
    reasonOf(failure("ENOTCONN", "ENOTCONN: socket is not connected, open '/mnt/x'")),
    "transport endpoint is not connected",
  );
  assert.equal(reasonOf(failure("EUCLEAN", "EUCLEAN: structure needs cleaning, read")), "structure needs cleaning");
  assert.equal(reasonOf(failure("ESOMETHING", "no words")), "ESOMETHING");
  assert.equal(reasonOf(new Error("the certificate is another one")), "the certificate is another one");
});
