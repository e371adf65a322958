import { expect, test, vi } from "vitest";

vi.stubGlobal("sessionStorage", { getItem: () => null, setItem: () => undefined });
const { sample, total } = await import("./samples");

const counters = { at: 0, applied: 100, bytes: 0, lagSum: 1, lagCount: 10, waiting: 0 };

test("a metric is added up over its labels and not mixed up with longer names", () => {
  const text = '# TYPE a_total counter\na_total{kind="seed"} 3\na_total{kind="live"} 4\na_total_more 100\n';
  expect(total(text, "a_total")).toBe(7);
  expect(total(text, "b_total")).toBeNull();
});

test("rates are the difference over the time", () => {
  const next = sample(counters, { at: 5000, applied: 150, bytes: 5000, lagSum: 2, lagCount: 60, waiting: 0.5 });
  expect(next).toEqual({ at: 5000, applied: 10, bytes: 1000, lag: 0.02, waiting: 0.5 });
});

test("nothing is claimed of the first look, nor after a restart", () => {
  expect(sample(null, counters)).toMatchObject({ applied: null, bytes: null, lag: null });
  expect(sample(counters, { ...counters, at: 5000, applied: 3, lagCount: 0 })).toMatchObject({ applied: null, lag: null });
});
