import { expect, test } from "vitest";
import { bars } from "./bars";

const NOW = Date.parse("2026-11-22T12:00:00Z");
const minute = (time: string, good: number, bad: number, reason = "") => ({
  minute: time, observer: "recovery", check: "quick", good, bad, seconds_mean: good > 0 ? 0.01 : 3, seconds_max: 3, reason,
});

test("minutes are put into bars by their time, the newest last", () => {
  const [row] = bars([minute("2026-11-22T11:59:00Z", 0, 20, "refused"), minute("2026-11-22T11:58:00Z", 30, 0), minute("2026-11-22T06:01:00Z", 30, 0)], NOW);
  expect(row).toMatchObject({ good: 60, bad: 20, reason: "refused", slowest: 3 });
  expect(row?.bars).toHaveLength(72);
  expect(row?.bars.at(-1)).toMatchObject({ good: 30, bad: 20, reason: "refused" });
  expect(row?.bars[0]).toMatchObject({ good: 30, bad: 0 });
  expect(row?.bars[30]).toMatchObject({ good: 0, bad: 0 });
});

test("each observer and check has a row of its own", () => {
  const rows = bars([minute("2026-11-22T11:58:00Z", 1, 0), { ...minute("2026-11-22T11:58:00Z", 1, 0), check: "deep" }, { ...minute("2026-11-22T11:58:00Z", 1, 0), observer: "a" }], NOW);
  expect(rows.map((row) => `${row.observer} ${row.check}`)).toEqual(["a quick", "recovery deep", "recovery quick"]);
});
