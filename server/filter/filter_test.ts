import assert from "node:assert/strict";
import { filterBy } from "./filter.ts";

const items = [
  {
    name: "c2",
    type: "container",
    size: 5,
    public: false,
    config: {},
    devices: { root: { pool: "p" } },
    used_by: ["x"],
  },
  { name: "fa", type: "custom", size: 7, public: true, config: { "user.a": "1", "user.b": "x y" } },
  { name: "fb", type: "custom", size: 50, public: false, config: { "user.a": "2", "size": "50MiB" } },
  { name: "fb/s0", type: "custom", size: 50, public: false, config: {} },
];
const names = (filter: string | undefined) => filterBy(items, filter).map(({ name }) => name).join(" ");

/** Each answer is that of LXD 5.0.2. */
const answers: readonly (readonly [string, string])[] = [
  ["name eq fa", "fa"],
  ["name eq FA", "fa"],
  ["Name eq fa", ""],
  ["name eq f.*", "fa fb fb/s0"],
  ["config.user.a eq 1", "fa"],
  ['config.user.b eq "x y"', "fa"],
  ["config.size eq 50MiB", "fb"],
  ["type eq custom and name ne fa", "fb fb/s0"],
  ["not name eq fa", "c2 fb fb/s0"],
  ["name eq fa or name eq fb", "fa fb"],
  ["type eq custom and name eq fa or name eq c2", "c2 fa"],
  ["devices.root.pool eq p", "c2"],
  ["nosuch eq 1", ""],
  ["config eq 1", ""],
  ["used_by eq 1", ""],
];

Deno.test("filters answer as LXD's", () => {
  for (const [filter, expected] of answers) assert.equal(names(filter), expected, filter);
  assert.equal(names(undefined), "c2 fa fb fb/s0");
  assert.equal(names(" "), "c2 fa fb fb/s0");
});

Deno.test("numbers and booleans too, the short form, quotes", () => {
  assert.equal(names("size eq 50 and public eq false"), "fb fb/s0");
  assert.equal(names("public eq true"), "fa");
  assert.equal(names('name=fa or config.user.a="2"'), "fa fb");
  assert.equal(names('config.user.b="x y"'), "fa");
  assert.equal(names("not name ne fa"), "fa");
});

Deno.test("what is no filter is refused, with the reason", () => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ["name", /^LidoError: Invalid filter: clause has no operator$/],
    ["name eq", /Invalid filter: clause has no value$/],
    ["name eq fa and", /Invalid filter: unterminated compound clause$/],
    ["name eq fa x", /Invalid filter: invalid clause composition$/],
    ['name eq "fa', /Invalid filter: unterminated quote$/],
    ["not", /Invalid filter: incomplete not clause$/],
    ["name odd fa", /unknown operator "odd": eq and ne are allowed$/],
    // LXD finds nothing by this one.
    ["(name eq fa)", /the value "fa\)" is no pattern/],
    ["name eq (", /the value "\(" is no pattern/],
    ["a eq b or ".repeat(200) + "a eq b", /more than 100 clauses/],
  ];
  for (const [filter, pattern] of refused) assert.throws(() => filterBy(items, filter), pattern, filter);
});
