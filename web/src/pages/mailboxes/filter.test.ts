import { expect, test } from "vitest";
import { filterOf, inWords, withPart } from "./filter";

test("the address bar holds the filter, and a state that is none is left out", () => {
  expect(filterOf(new URLSearchParams("state=faulted&server=mail-a&q=%20ana%20"))).toEqual({ state: "faulted", server: "mail-a", q: "ana" });
  expect(filterOf(new URLSearchParams("state=sleeping&group="))).toEqual({});
});

test("a part is set and taken away without touching the others", () => {
  const search = new URLSearchParams("state=paused&q=a");
  expect(withPart(search, "q", "bob").toString()).toBe("state=paused&q=bob");
  expect(withPart(search, "state", null).toString()).toBe("q=a");
});

test("the filter in words", () => {
  expect(inWords({})).toBe("all protected mailboxes");
  expect(inWords({ state: "on_standby", group: "board" })).toBe("every mailbox whose state is on standby, in group board");
});
