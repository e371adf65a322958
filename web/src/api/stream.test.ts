import { expect, test } from "vitest";
import { Frames } from "./stream";

test("frames are cut where they end, however the text arrives", () => {
  const text = ": listening\n\nid: 7\nevent: state\ndata: {\"a\":1}\n\nevent: lag\ndata: {}\n\n";
  const whole = new Frames().push(text);
  const pieces = new Frames();
  expect([...text].flatMap((letter) => pieces.push(letter))).toEqual(whole);
  expect(whole).toEqual([
    { id: "7", event: "state", data: '{"a":1}' },
    { id: null, event: "lag", data: "{}" },
  ]);
});

test("several data lines are one text, and an event without data is none", () => {
  expect(new Frames().push("data: a\ndata: b\n\nevent: empty\n\n")).toEqual([{ id: null, event: "message", data: "a\nb" }]);
});
