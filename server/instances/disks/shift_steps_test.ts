import assert from "node:assert/strict";
import fc from "fast-check";
import { completed, type Translate, translator } from "../../../drivers/host/ids/id_shift.ts";
import type { IdMap, IdRange } from "../../../drivers/host/id_map.ts";
import { detour, shiftInSteps } from "./shift_steps.ts";

const map = (host: number, count = 65536): IdMap => {
  const lines = [{ container: 0, host, count }];
  return { uid: lines, gid: lines };
};

const shared = map(100_000, 10_000_001), earlier = map(100_000), isolated = map(165_536), own = map(231_072, 200_000);
const raw: IdMap = {
  uid: [
    { container: 0, host: 100_000, count: 5 },
    { container: 5, host: 1000, count: 1 },
    { container: 6, host: 100_006, count: 9_999_995 },
  ],
  gid: shared.gid,
};

/** A tree as a list of the host ids of its files; each step is interrupted after some of them and then repeated. @returns Number of passes. */
async function shift(files: number[], from: IdMap | undefined, to: IdMap | undefined, cut: number): Promise<number> {
  let walks = 0;
  await shiftInSteps(from, to, (before, after) => {
    walks++;
    const translate = translator(before?.uid, after?.uid);
    let changed = 0;
    for (const end of [Math.min(cut, files.length), files.length]) {
      for (let index = 0; index < end; index++) {
        const next = translate(files[index]!);
        if (next !== files[index]) changed++;
        files[index] = next;
      }
    }
    return Promise.resolve(changed);
  });
  return walks;
}

/** @returns A function from a file's host id to its owner in the container. */
function ownerIn(owned: IdMap | undefined): Translate {
  const lines: readonly IdRange[] = completed(owned?.uid);
  return (id) => {
    const line = lines.find(({ host, count }) => host <= id && id < host + count);
    return line ? line.container + id - line.host : -1 - id;
  };
}

const maps = [undefined, shared, earlier, isolated, own, raw, map(1_000_000, 1_000_000_000), map(100_010, 70_000)];

Deno.test("shiftInSteps() keeps every owner or refuses, wherever it is interrupted, and comes back", async () => {
  const id = fc.oneof(
    fc.nat(70_000),
    fc.integer({ min: 99_990, max: 300_000 }),
    fc.constantFrom(200_000, 165_535, 165_536, 10_000_000, 10_100_000, 10_100_001, 1_000_999_999, 4_294_967_294),
  );
  const some = fc.constantFrom(...maps);
  await fc.assert(fc.asyncProperty(fc.array(id, { minLength: 1, maxLength: 12 }), some, some, fc.nat(12), async (
    files,
    from,
    to,
    cut,
  ) => {
    const owners = files.map(ownerIn(from));
    const after = [...files];
    try {
      await shift(after, from, to, cut);
    } catch (error) {
      assert.match(String(error), /^OwnerError: owner \d+ has no place in the new id map$/);
      const places = completed(to?.uid);
      assert.ok(
        owners.some((owner) =>
          owner >= 0 && !places.some(({ container, count }) => container <= owner && owner < container + count)
        ),
      );
      return;
    }
    // A host id that is not in the map is kept.
    const own = owners.map((owner, index) => owner < 0 ? ownerIn(to)(files[index]!) : owner);
    assert.deepEqual(after.map(ownerIn(to)), own);
  }));
});

Deno.test("shiftInSteps() reads the owners once more where rare ids could be mistaken, and walks a third time for those alone", async () => {
  for (
    const [from, to, usual] of [
      [undefined, shared, [0, 1000, 65534]],
      [shared, undefined, [100_000, 101_000, 165_534]],
      [shared, isolated, [100_000, 101_000]],
      [isolated, shared, [165_536, 231_071]],
    ] as const
  ) assert.equal(await shift([...usual], from, to, 1), 2);
  // From an earlier version's map to all of root's range, beginning at the same id: nothing is changed.
  const kept = [100_000, 101_000, 165_534];
  assert.equal(await shift(kept, earlier, shared, 1), 1);
  assert.deepEqual(kept, [100_000, 101_000, 165_534]);
  // An image's owner that the earlier map did not have is changed to its host id.
  const rare = [100_000, 200_000];
  assert.equal(await shift(rare, earlier, shared, 1), 2);
  assert.deepEqual(rare, [100_000, 300_000]);
  assert.equal(await shift([0, 200_000], undefined, shared, 1), 3);
  // Maps that overlap by less than their size: all ids are parked.
  assert.equal(await shift([100_000, 100_020], map(100_000), map(100_010), 1), 2);
});

Deno.test("detour() is not made where ids cannot be mistaken; ids wait where nobody has any", () => {
  assert.equal(detour(shared, shared), undefined);
  assert.equal(detour(shared, raw), undefined);
  const waits = (from: IdMap, to: IdMap) => detour(from, to)!.parked.uid.find(({ container }) => container === 0)!.host;
  assert.equal(waits(map(1_000_000), map(1_000_010)), 2 ** 31);
  assert.equal(waits(map(2 ** 31), map(2 ** 31 + 1)), 3 * 2 ** 30);
});
