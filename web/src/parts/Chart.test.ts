import { expect, test } from "vitest";
import { ceiling } from "./Chart";

test.each([[0, 1], [0.03, 0.05], [1, 1], [1.2, 2], [7, 10], [100, 100]])("the axis above %d ends at %d", (value, top) => {
  expect(ceiling(value)).toBeCloseTo(top);
});
