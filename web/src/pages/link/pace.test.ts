import { expect, test } from "vitest";
import { pace } from "./pace";

const rows = (seed: number, control: number) => [
  { direction: "out", kind: "seed", bytes: seed },
  { direction: "in", kind: "control", bytes: control },
];

test("the pace is what changed between two reports over the time between them", () => {
  const first = pace(null, rows(1000, 5), 0);
  expect(first.paced).toBeNull();
  // Nobody knows how old the first was.
  const second = pace(first.last, rows(3000, 6), 4000);
  expect(second.paced).toBeNull();
  // Nothing new is no report.
  const same = pace(second.last, rows(3000, 6), 9000);
  expect(same.paced).toBeNull();
  const third = pace(same.last, rows(23_000, 6), 14_000);
  expect(third.paced).toEqual({ rates: { "out seed": 2000, "in control": 0 }, seconds: 10 });
});

test("a kind that appears counts from nothing, and nothing goes backwards", () => {
  const first = pace(null, [], 0);
  const second = pace(first.last, rows(100, 1), 1000);
  const third = pace(second.last, [...rows(50, 2), { direction: "out", kind: "live", bytes: 500 }], 2000);
  expect(third.paced?.rates).toEqual({ "out seed": 0, "in control": 1, "out live": 500 });
});
