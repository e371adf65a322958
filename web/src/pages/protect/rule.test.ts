import { expect, test } from "vitest";
import { meant } from "./rule";

const users = ["ana@example.org", "Bob@sales.example.org", "test-1@sales.example.org", "a.b@example.org", "axb@example.org"];

test("a rule means whom a pattern fits and no exception does", () => {
  expect(meant("*@sales.example.org\n!test-*", users)).toEqual(["Bob@sales.example.org"]);
  expect(meant("*", users)).toEqual(users);
  expect(meant("a?a@*\n", users)).toEqual(["ana@example.org"]);
  expect(meant("", users)).toEqual([]);
  expect(meant("!ana@example.org", users)).toEqual([]);
});

test("nothing but stars and question marks is special", () => {
  expect(meant("a.b@example.org", users)).toEqual(["a.b@example.org"]);
  expect(meant("(a+)+@*[", users)).toEqual([]);
});
