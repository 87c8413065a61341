import assert from "node:assert/strict";
import { nextSnapshotName, patternProblem } from "./snapshot_pattern.ts";

const now = new Date(2026, 1, 3, 14, 5, 6);

Deno.test("nextSnapshotName() counts on from the highest number used", () => {
  assert.equal(nextSnapshotName("snap%d", [], now), "snap0");
  assert.equal(nextSnapshotName("snap%d", ["snap0", "snap7", "snapx", "other9"], now), "snap8");
  assert.equal(nextSnapshotName("a%d-b", ["a3-b", "a9"], now), "a4-b");
});

Deno.test("nextSnapshotName() puts a number behind a name that is taken, as LXD", () => {
  assert.equal(nextSnapshotName("daily", [], now), "daily");
  assert.equal(nextSnapshotName("daily", ["daily"], now), "daily-0");
  assert.equal(nextSnapshotName("daily", ["daily", "daily-0"], now), "daily-1");
});

Deno.test("nextSnapshotName() writes the time as Go's layouts have it", () => {
  const of = (pattern: string) => nextSnapshotName(pattern, [], now);
  assert.equal(of("{{ creation_date|date:'2006-01-02_15-04-05' }}"), "2026-02-03_14-05-06");
  assert.equal(of(`auto-{{creation_date | date:"20060102"}}-%d`), "auto-20260203-0");
  assert.equal(of("{{ creation_date|date:'Mon-Jan-2-3.04PM' }}"), "Tue-Feb-3-2.05PM");
  assert.equal(of("{{ creation_date|date:'06-002' }}"), "26-034");
  assert.equal(of("{{ creation_date }}"), "2026-02-03T14:05:06");
});

Deno.test("patternProblem() accepts what makes names and tells what is wrong with the rest", () => {
  for (const good of ["snap%d", "daily", "{{ creation_date }}", "{{creation_date|date:'2006-01-02_15-04-05'}}-%d"]) {
    assert.equal(patternProblem(good), undefined, good);
  }
  assert.match(patternProblem("{{ instance_name }}")!, /"{{ instance_name }}": {{ creation_date }} and .* are allowed/);
  assert.match(patternProblem("{{ creation_date|upper }}")!, /are allowed/);
  assert.match(patternProblem("{{ creation_date")!, /not a whole template/);
  assert.match(patternProblem("{% if x %}a{% endif %}")!, /not a whole template/);
  assert.match(patternProblem("%d-%d")!, /only once/);
  assert.match(patternProblem("{{ creation_date|date:'2006/01/02' }}")!, /may not contain slashes/);
  assert.match(patternProblem("{{ creation_date|date:'Jan 2' }}")!, /letters, digits/);
});
