import { expect, test } from "vitest";
import { addressesIn, isTable, rowsIn } from "./addresses";

test("addresses are found whatever separates them, and each once", () => {
  expect(addressesIn("ana@example.org, bob@example.org\n<cleo@example.org>;ana@example.org\t dan ")).toEqual([
    "ana@example.org", "bob@example.org", "cleo@example.org", "dan",
  ]);
  expect(addressesIn(" \n ")).toEqual([]);
});

test("a table begins with a line that names its columns", () => {
  expect(isTable("address,group\nana@example.org,board")).toBe(true);
  expect(isTable('"Address"\nana')).toBe(true);
  expect(isTable("ana@example.org\nbob@example.org")).toBe(false);
  expect(rowsIn("address,group\nana,board\n\nbob,\n")).toBe(2);
});
