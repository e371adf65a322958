import { expect, test } from "vitest";
import { BUILT_IN, documentOf, textOf, withText } from "./document";

test("what a document does not say is as it was built in", () => {
  expect(documentOf({ switchover: "shadow" })).toEqual({ ...BUILT_IN, switchover: "shadow" });
});

test("what is written as JSON comes back as it was", () => {
  const restart = { hook: { command: "restart" }, wait_seconds: 5 };
  const document = { ...BUILT_IN, restart };
  expect(withText(BUILT_IN, textOf(document))).toEqual(document);
});

test("a member that is taken out of the text is not sent", () => {
  expect(withText({ ...BUILT_IN, brake: { share: 0.2 } }, "{}")).not.toHaveProperty("brake");
  expect(() => withText(BUILT_IN, "[1]")).toThrow();
});
