import assert from "node:assert/strict";
import { slowness } from "../../../tests/support/slowness.ts";
import { render, templatesFor } from "./templates.ts";

const values = {
  name: "c1",
  architecture: "x86_64",
  ephemeral: false,
  privileged: false,
  config: { "user.greeting": "hello" },
};
const file = { target: "/etc/x", template: "x.tpl", createOnly: false, properties: { colour: "red" } };
const metadata = `
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl}
  /etc/once: {when: [create], template: once.tpl, create_only: true, properties: {n: 1}}
  /etc/run: {when: [start], template: run.tpl}
`;

Deno.test("templatesFor() picks what is due", () => {
  assert.deepEqual(templatesFor(metadata, "create").map((each) => each.target), ["/etc/hostname", "/etc/once"]);
  assert.deepEqual(templatesFor(metadata, "copy").map((each) => each.target), ["/etc/hostname"]);
  assert.deepEqual(templatesFor(metadata, "create")[1]!.properties, { n: "1" });
  assert.deepEqual(templatesFor("architecture: x86_64\n", "start"), []);
});

Deno.test("templatesFor() does not follow an image's template name out of its directory", () => {
  for (const name of ["../../etc/shadow", "/etc/shadow", "..", "a/b"]) {
    assert.throws(
      () => templatesFor(`templates:\n  /x: {when: [create], template: "${name}"}\n`, "create"),
      /outside of template directory/,
    );
  }
  assert.throws(() => templatesFor("templates: [1", "create"), /Could not parse metadata.yaml/);
});

Deno.test("render() knows names, settings, properties and if", () => {
  assert.equal(render("{{ container.name }}\n", file, values, "create"), "c1\n");
  assert.equal(
    render('{{config_get("user.greeting", "x")}} {{ config_get("user.no", "y") }}', file, values, "create"),
    "hello y",
  );
  assert.equal(render("{{ properties.colour }}{{ trigger }}{{ path }}", file, values, "start"), "redstart/etc/x");
  const text = '{% if config_get("user.no", "") == "" %}none{% else %}{{ config.user.no }}{% endif %}.';
  assert.equal(render(text, file, values, "create"), "none.");
  assert.equal(
    render('{% if trigger != "start" %}a{% if trigger == "x" %}b{% endif %}{% endif %}c', file, values, "copy"),
    "ac",
  );
});

Deno.test("render() refuses what it does not know", () => {
  assert.throws(
    () => render("{{ container.name|upper }}", file, values, "create"),
    /unsupported "container.name\|upper"/,
  );
  assert.throws(() => render("{% for a in b %}{% endfor %}", file, values, "create"), /unsupported "for a in b"/);
  assert.throws(() => render("{% if trigger %}", file, values, "create"), /if without endif/);
  assert.throws(() => render("{{ constructor.name }}", file, values, "create"), /unsupported/);
});

Deno.test("a template that is made to hold its reader, or to fill his memory, is refused in a moment", () => {
  const size = 1 << 20;
  const long = { ...file, target: `/${"x".repeat(500_000)}` };
  for (
    const [text, refusal] of [
      ["{{".repeat(size / 2), /unsupported/],
      ["{%{{".repeat(size / 4), /unsupported/],
      [`{% if a${" ".repeat(size)}b %}{% endif %}`, /unsupported/],
      [`{{ config_get(${" ".repeat(size)}"b" }}`, /unsupported/],
      [`{% if ${"=".repeat(size)} %}{% endif %}`, /unsupported/],
      ["{% if trigger %}".repeat(size / 16), /more than 100 if within one another/],
      ["{{path}}".repeat(size / 8), /output of more than 1048576 characters/],
    ] as const
  ) {
    const started = performance.now();
    assert.throws(() => render(text, long, values, "start"), refusal);
    assert.throws(() => render(text, long, values, "start"), ({ message }: Error) => message.length < 500);
    const took = performance.now() - started;
    assert.ok(took < 5_000 * slowness, `${took} ms for ${text.slice(0, 20)}`);
  }
  const many = Array.from({ length: 101 }, (_, index) => `  /${index}: {when: [start], template: x}\n`).join("");
  assert.throws(() => templatesFor(`templates:\n${many}`, "start"), /has 101 templates, 100 are allowed/);
});
