// What changing sides would mean, from what is known of the mailboxes now. It decides nothing: the run checks again, mailbox by
// mailbox, when it moves them.
import type { Mailbox, MailboxState } from "../../api/client";

export type Target = "standby" | "primary";

export interface Look {
  /** Those that would be moved. */
  moved: Mailbox[];
  /** Where they already are. */
  already: Mailbox[];
  /** Those whose state stands in the way, by state. */
  stopped: Map<MailboxState, Mailbox[]>;
  /** Of those moved, the ones with transactions not yet applied. */
  behind: Mailbox[];
  transactions: number;
  /** Age of the oldest transaction not yet applied. */
  seconds: number;
  /** Never found equal on both sides. */
  unverified: Mailbox[];
  /** Messages that the other side does not hold as they are. */
  setAside: number;
}

/** States in which a mailbox is not as complete on the other side as `mirroring` promises. */
const STOPPED: MailboxState[] = ["seeding", "paused", "held", "faulted", "switching_over", "switching_back"];

export function look(mailboxes: Mailbox[], target: Target): Look {
  const found: Look = { moved: [], already: [], stopped: new Map(), behind: [], transactions: 0, seconds: 0, unverified: [], setAside: 0 };
  for (const mailbox of mailboxes) {
    if (mailbox.active_side === target && mailbox.state !== "switching_back" && mailbox.state !== "switching_over") {
      found.already.push(mailbox);
      continue;
    }
    found.moved.push(mailbox);
    if (STOPPED.includes(mailbox.state)) found.stopped.set(mailbox.state, [...(found.stopped.get(mailbox.state) ?? []), mailbox]);
    if (mailbox.lag.transactions > 0) {
      found.behind.push(mailbox);
      found.transactions += mailbox.lag.transactions;
      found.seconds = Math.max(found.seconds, mailbox.lag.seconds);
    }
    if (!mailbox.last_verified_at) found.unverified.push(mailbox);
    found.setAside += mailbox.set_aside;
  }
  return found;
}
