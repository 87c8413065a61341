import assert from "node:assert/strict";
import { checkOrigin, checkWebsocketOrigin, isOrigin, originHeaders, type OriginSettings } from "./origin.ts";

const settings = (config: Record<string, string> = {}): OriginSettings => ({ get: (key) => config[key] });
const none = settings();
const some = settings({ "core.https_allowed_origin": "https://ui.example" });
const every = settings({ "core.https_allowed_origin": "*" });
const of = (headers: Record<string, string>) => (name: string) => ({ host: "127.0.0.1:8443", ...headers })[name];
const json = { "content-type": "application/json" };

Deno.test("a page of another site is refused, whatever it hides", () => {
  for (
    const headers of [
      { origin: "https://evil.example" },
      { origin: "https://127.0.0.1" },
      { origin: "http://127.0.0.1:8443" },
      { origin: "https://127.0.0.1:8443.evil.example" },
      { origin: "null" },
      { origin: "" },
      { referer: "https://evil.example/page" },
      { referer: "" },
      { "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" },
      { "sec-fetch-site": "cross-site", origin: "https://evil.example", ...json },
    ] as Record<string, string>[]
  ) {
    for (const method of ["GET", "POST", "DELETE"]) {
      for (const allowed of [none, some]) {
        assert.throws(() => checkOrigin(method, of(headers), allowed), /does not allow it/, JSON.stringify(headers));
      }
    }
    for (const allowed of [none, some, every]) {
      assert.throws(() => checkWebsocketOrigin(of(headers), allowed), /does not allow it/, JSON.stringify(headers));
    }
  }
});

Deno.test("clients that are no browsers, the server's own origin and an allowed one are served", () => {
  for (
    const headers of [
      {},
      { "content-type": "application/x-www-form-urlencoded" }, // curl -d
      { origin: "https://127.0.0.1:8443", ...json },
      { origin: "wss://127.0.0.1:8443", ...json },
      { origin: "https://127.0.0.1:8443" },
      { "sec-fetch-site": "none", "user-agent": "Mozilla/5.0", ...json },
    ] as Record<string, string>[]
  ) {
    checkOrigin("POST", of(headers), none);
    checkWebsocketOrigin(of(headers), none);
  }
  checkOrigin("POST", of({ origin: "https://h", host: "h:443", ...json }), none);
  checkOrigin("POST", of({ origin: "https://ui.example", ...json }), some);
  checkOrigin("POST", of({ origin: "https://ui.example", "content-type": "multipart/form-data; boundary=x" }), some);
  checkOrigin("DELETE", of({ origin: "https://any.example" }), every);
  checkWebsocketOrigin(of({ origin: "https://ui.example" }), some);
});

Deno.test("a browser sends no body that it may send without asking", () => {
  const isRefused = (headers: Record<string, string>, allowed: OriginSettings) =>
    assert.throws(() => checkOrigin("POST", of(headers), allowed), /Invalid Content-Type/);
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "text/plain;application/json"]) {
    isRefused({ "user-agent": "Mozilla/5.0", "content-type": type }, none);
    isRefused({ origin: "https://127.0.0.1:8443", "content-type": type }, none);
    isRefused({ origin: "https://any.example", "content-type": type }, every);
  }
  isRefused({ origin: "https://any.example" }, every);
  isRefused({ origin: "https://any.example", "content-type": "multipart/form-data; boundary=x" }, every);
  isRefused({ "user-agent": "Mozilla/5.0", "content-type": "multipart/form-data; boundary=x" }, none);
});

Deno.test("the browser is told what the settings allow", () => {
  const all = settings({
    "core.https_allowed_origin": "https://ui.example",
    "core.https_allowed_methods": "GET, PUT",
    "core.https_allowed_headers": "Content-Type",
    "core.https_allowed_credentials": "true",
  });
  assert.deepEqual(originHeaders(of({ origin: "https://ui.example" }), all), {
    "access-control-allow-origin": "https://ui.example",
    vary: "Origin",
    "access-control-allow-methods": "GET, PUT",
    "access-control-allow-headers": "Content-Type",
    "access-control-allow-credentials": "true",
  });
  assert.deepEqual(originHeaders(of({ origin: "https://evil.example" }), all), {});
  assert.deepEqual(originHeaders(of({}), all), {});
  assert.deepEqual(originHeaders(of({ origin: "https://ui.example" }), none), {});
  assert.deepEqual(["*", "https://a", "https://a:1", "https://a/", "a", "null", "a b"].map(isOrigin), [
    true,
    true,
    true,
    false,
    false,
    false,
    false,
  ]);
});
