import { expect, test } from "vitest";
import type { Mailbox } from "../../api/client";
import { look } from "./look";

function mailbox(change: Partial<Mailbox>): Mailbox {
  return {
    active_side: "primary", state: "mirroring", lag: { transactions: 0, seconds: 0, bytes: 0 }, set_aside: 0, last_verified_at: "2026-01-01T00:00:00Z", ...change,
  } as Mailbox;
}

test("what is on the other side already is not moved", () => {
  const found = look([mailbox({ address: "a" }), mailbox({ address: "b", active_side: "standby", state: "on_standby" })], "standby");
  expect(found.moved.map(({ address }) => address)).toEqual(["a"]);
  expect(found.already.map(({ address }) => address)).toEqual(["b"]);
});

test("what waits, what stands in the way and what was never verified is added up", () => {
  const found = look([
    mailbox({ lag: { transactions: 3, seconds: 4, bytes: 0 } }),
    mailbox({ lag: { transactions: 2, seconds: 9, bytes: 0 }, state: "faulted", last_verified_at: null }),
    mailbox({ state: "paused", set_aside: 2 }),
  ], "standby");
  expect(found).toMatchObject({ transactions: 5, seconds: 9, setAside: 2 });
  expect(found.behind).toHaveLength(2);
  expect([...found.stopped.keys()]).toEqual(["faulted", "paused"]);
  expect(found.unverified).toHaveLength(1);
});
