import { expect, test } from "vitest";
import { ago, bytes, duration, mailboxes, title, whole } from "./words";

test.each([
  [0.012, "12 ms"], [1.34, "1.3 s"], [9.94, "9.9 s"], [9.96, "10 s"], [119, "119 s"], [120, "2 min"],
  [7200, "2 h"], [172_800, "2 days"],
])("%d seconds are %s", (seconds, text) => expect(duration(seconds)).toBe(text));

test("the recent past", () => {
  expect(ago(0.2)).toBe("just now");
  expect(ago(4.2)).toBe("4 s ago");
  expect(ago(300)).toBe("5 min ago");
});

test("sizes", () => {
  expect(bytes(0)).toBe("0 B");
  expect(bytes(1536)).toBe("1.5 KiB");
  expect(bytes(812_345_678)).toBe("775 MiB");
});

test("parts of sentences become sentences", () => {
  expect(whole("the token was refused")).toBe("The token was refused.");
  expect(whole("`understudy status` says more")).toBe("`understudy status` says more.");
  expect(whole("mail-a: the server is gone")).toBe("mail-a: the server is gone.");
  expect(whole("Renew it.")).toBe("Renew it.");
  expect(whole("")).toBe("");
  expect(title("missing_on_standby")).toBe("Missing on standby");
  expect(mailboxes(1)).toBe("1 mailbox");
  expect(mailboxes(50_000)).toBe("50,000 mailboxes");
});
