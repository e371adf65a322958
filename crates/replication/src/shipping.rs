//! The journal's protocol between the gateways, as decisions. Pure: both gateways act on these, and so does the simulation that loses,
//! doubles and reorders what they say (`tests/journal.rs`).
//!
//! Keeps true: a number is received once, after all before it; what is dropped at the source was received; two journals that differ
//! are noticed.

use understudy_protocol::{
    Digest, Direction, Epoch, Seq, Transaction,
    messages::{Ack, Refusal},
};

/// What the receiver makes of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The one wanted: taken, if its contents are there.
    Next,
    /// Its number was received: acknowledged again, if it is the same transaction.
    Again,
    /// Not taken, and nothing after it in this shipment.
    Refused(Refusal),
}

/// How far a journal was received: the last number, and the digest of that transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub seq: Seq,
    pub digest: Digest,
}

/// Judges a transaction of a mailbox that is in `epoch` and has received through `received`.
#[must_use]
pub fn judge(epoch: Epoch, received: Received, transaction: &Transaction) -> Verdict {
    if transaction.epoch != epoch {
        Verdict::Refused(Refusal::Epoch { current: epoch })
    } else if transaction.direction != Direction::Outbound {
        Verdict::Refused(Refusal::Direction)
    } else if transaction.seq <= received.seq {
        Verdict::Again
    } else if transaction.seq == received.seq.next() {
        if differ(transaction.previous, received.digest) { Verdict::Refused(Refusal::Diverged) } else { Verdict::Next }
    } else {
        Verdict::Refused(Refusal::Gap)
    }
}

/// Are these two digests of the same transaction, and not the same? One that is not known says nothing.
fn differ(one: Digest, other: Digest) -> bool {
    one.is_known() && other.is_known() && one != other
}

/// What the source makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything through this number is safe there, and needs no keeping here.
    Received(Seq),
    /// Nobody over there knows the mailbox: wait for directives.
    Unwanted,
    /// The two journals do not fit.
    Disputed {
        /// What was received of it.
        received: Seq,
        /// What was received is not what we hold under the same number, or lacks what ours builds on.
        diverged: bool,
    },
}

/// Reads an acknowledgement.
#[must_use]
pub fn heed(ack: &Ack) -> Answer {
    match &ack.refused {
        None => Answer::Received(ack.received),
        Some(Refusal::UnknownMailbox) => Answer::Unwanted,
        Some(refusal) => {
            // Contents that it lacks came with transactions that it lacks too, or are gone over there: sending the same again would be
            // refused again, for ever.
            let diverged = matches!(refusal, Refusal::Diverged | Refusal::LacksContent { .. });
            Answer::Disputed { received: ack.received, diverged }
        }
    }
}

/// How far a journal goes, as the source holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub epoch: Epoch,
    pub captured: Seq,
    /// Through here, rows were dropped as received.
    pub dropped: Seq,
    /// Of the transaction last captured.
    pub digest: Digest,
}

/// Must the source's journal be rebuilt from what was received? Where ours lacks what was received, and where what we dropped as received
/// is gone over there, and where the same number means another transaction: the receiver's word is final. And in another epoch: the user was on the other side and came home, and what we knew
/// of the primary is past. `received`: as the receiver says it now; none when the two were compared since both began.
#[must_use]
pub fn must_rebuild(held: Held, epoch: Epoch, received: Option<Received>) -> bool {
    let differs = received.is_some_and(|received| {
        held.captured < received.seq
            || held.dropped > received.seq
            || (held.captured == received.seq && differ(held.digest, received.digest))
    });
    differs || held.epoch != epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_the_receiver_cannot_continue_is_rebuilt() {
        let held = Held { epoch: Epoch(1), captured: Seq(9), dropped: Seq(5), digest: Digest::of(b"nine") };
        let received = |seq, digest| Some(Received { seq: Seq(seq), digest });
        for (seq, rebuilt) in [(4, true), (5, false), (9, false), (10, true)] {
            assert_eq!(must_rebuild(held, Epoch(1), received(seq, Digest::default())), rebuilt, "{seq}");
        }
        let other = Digest::of(b"another nine");
        assert!(must_rebuild(held, Epoch(1), received(9, other)));
        assert!(!must_rebuild(held, Epoch(1), received(9, held.digest)));
        // What came before the last one captured here is seen when that is shipped.
        assert!(!must_rebuild(held, Epoch(1), received(8, other)));
        assert!(must_rebuild(held, Epoch(2), received(7, Digest::default())) && must_rebuild(held, Epoch(2), None));
        assert!(!must_rebuild(held, Epoch(1), None));
    }
}
