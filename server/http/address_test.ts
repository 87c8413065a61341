import assert from "node:assert/strict";
import { parseAddress, showAddress } from "./address.ts";

Deno.test("addresses as core.https_address has them", () => {
  const shown = (text: string) => showAddress(parseAddress(text));
  assert.equal(shown(":8443"), "[::]:8443");
  assert.equal(shown("127.0.0.1"), "127.0.0.1:8443");
  assert.equal(shown("10.0.0.1:443"), "10.0.0.1:443");
  assert.equal(shown("[::1]:1"), "[::1]:1");
  assert.equal(shown("[::1]"), "[::1]:8443");
  assert.equal(shown("::1"), "[::1]:8443");
  assert.equal(shown("host.example:9"), "host.example:9");
  for (const wrong of ["", "a b", "host:70000", "host:", "[::1", "http://x", "host:x"]) {
    assert.throws(() => parseAddress(wrong), /Invalid address/, wrong);
  }
});
