// Captured, received, applied, verified: how far the mailbox's transactions are, and how old what waits between two places is.
import type { Mailbox } from "../../api/client";
import { Ago } from "../../parts/Ago";
import { bytes, count, duration } from "../../parts/words";

export function Pipeline({ mailbox }: { mailbox: Mailbox }) {
  const { journal, lag } = mailbox;
  const onLink = Math.max(0, journal.captured - journal.received);
  const atStandby = Math.max(0, journal.received - journal.applied);
  // While the user is on the standby, the same journal runs the other way.
  const [from, to] = mailbox.active_side === "primary" ? [mailbox.primary, mailbox.standby] : [mailbox.standby, mailbox.primary];
  return (
    <section aria-label="Pipeline" className="stack tight">
      <ol className="pipeline">
        <Stage name="Captured" value={count(journal.captured)} about={<>on {from}; last change <Ago time={mailbox.last_transaction_at} /></>} />
        <Arrow waiting={onLink} />
        <Stage name="Received" value={count(journal.received)} about="durable at the recovery site" />
        <Arrow waiting={atStandby} />
        <Stage name="Applied" value={count(journal.applied)} about={<>visible on {to}</>} />
        <li className="arrow" aria-hidden="true">→</li>
        <Stage name="Verified" value={<Ago time={mailbox.last_verified_at} />} about="both sides compared and equal" />
      </ol>
      <p className={lag.transactions > 0 ? "" : "quiet"} role="status">
        {lag.transactions === 0
          ? "Nothing waits: every captured transaction is applied."
          : `${count(lag.transactions)} captured and not yet applied; the oldest is ${duration(lag.seconds)} old${lag.bytes > 0 ? `, ${bytes(lag.bytes)} in all` : ""}.`}
      </p>
    </section>
  );
}

function Stage({ name, value, about }: { name: string; value: React.ReactNode; about: React.ReactNode }) {
  return <li className="stage"><h2>{name}</h2><div className="count">{value}</div><div className="quiet small">{about}</div></li>;
}

function Arrow({ waiting }: { waiting: number }) {
  return <li className="arrow">{waiting > 0 ? `${count(waiting)} on the way →` : <span aria-hidden="true">→</span>}</li>;
}
