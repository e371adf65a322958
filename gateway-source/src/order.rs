//! Whose turn it is to ship: live changes before first copies, then by rank, then who has waited longest.
//!
//! Keeps true: one shipment of a mailbox at a time; a mailbox that has much to ship waits its turn after each shipment, so none starves
//! another; first copies never take every place.

use std::collections::{BTreeMap, HashMap, HashSet};

use understudy_protocol::MailboxId;

/// When it is a mailbox's turn: the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    seed: bool,
    priority: i32,
    ticket: u64,
}

/// Mailboxes that have something to ship, in order.
#[derive(Debug, Default)]
pub(crate) struct Order {
    queue: BTreeMap<Turn, MailboxId>,
    turns: HashMap<MailboxId, Turn>,
    /// Being shipped, and whether that is part of a first copy.
    under_way: HashMap<MailboxId, bool>,
    /// Failed a moment ago.
    resting: HashSet<MailboxId>,
    ranks: HashMap<MailboxId, i32>,
    tickets: u64,
}

impl Order {
    /// Lower is served earlier.
    pub(crate) fn rank(&mut self, mailbox: MailboxId, priority: i32) {
        self.ranks.insert(mailbox, priority);
    }

    /// Something of this mailbox waits; `seed` says of what is next whether it is part of a first copy.
    pub(crate) fn add(&mut self, mailbox: MailboxId, seed: bool) {
        if self.turns.contains_key(&mailbox) {
            // What came first goes first, and that was said when it came.
            return;
        }
        self.tickets += 1;
        let priority = self.ranks.get(&mailbox).copied().unwrap_or_default();
        let turn = Turn { seed, priority, ticket: self.tickets };
        self.turns.insert(mailbox, turn);
        self.queue.insert(turn, mailbox);
    }

    /// The next mailbox, and whether what it has is part of a first copy. At most so many at once, and so many first copies of them.
    pub(crate) fn take(&mut self, at_once: usize, seeds_at_once: usize) -> Option<(MailboxId, bool)> {
        if self.under_way.len() >= at_once {
            return None;
        }
        let no_seeds = self.under_way.values().filter(|seed| **seed).count() >= seeds_at_once;
        let (&turn, &mailbox) = self.queue.iter().find(|(turn, mailbox)| {
            let must_wait = turn.seed && no_seeds;
            !must_wait && !self.under_way.contains_key(mailbox) && !self.resting.contains(mailbox)
        })?;
        self.queue.remove(&turn);
        self.turns.remove(&mailbox);
        self.under_way.insert(mailbox, turn.seed);
        Some((mailbox, turn.seed))
    }

    /// Its shipment has ended.
    pub(crate) fn done(&mut self, mailbox: MailboxId) {
        self.under_way.remove(&mailbox);
    }

    /// Its shipment failed: it is not taken again before [`Order::rested`], and its place is free meanwhile.
    pub(crate) fn failed(&mut self, mailbox: MailboxId, seed: bool) {
        self.done(mailbox);
        self.resting.insert(mailbox);
        self.add(mailbox, seed);
    }

    pub(crate) fn rested(&mut self, mailbox: MailboxId) {
        self.resting.remove(&mailbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MailboxId = MailboxId(1);
    const B: MailboxId = MailboxId(2);
    const C: MailboxId = MailboxId(3);

    #[test]
    fn live_changes_overtake_first_copies_which_never_take_every_place() {
        let mut order = Order::default();
        for mailbox in 10..20 {
            order.add(MailboxId(mailbox), true);
        }
        order.add(A, false);
        assert_eq!(order.take(4, 2), Some((A, false)), "whoever came first");
        assert_eq!(order.take(4, 2), Some((MailboxId(10), true)));
        assert_eq!(order.take(4, 2), Some((MailboxId(11), true)));
        assert_eq!(order.take(4, 2), None, "two first copies at once");
        order.add(B, false);
        order.add(C, false);
        assert_eq!(order.take(4, 2), Some((B, false)));
        assert_eq!(order.take(4, 2), None, "four at once");
        order.done(A);
        assert_eq!(order.take(4, 2), Some((C, false)));
        order.done(MailboxId(10));
        assert_eq!(order.take(4, 0), None, "no first copies now");
        assert_eq!(order.take(4, 2), Some((MailboxId(12), true)));
    }

    #[test]
    fn turns_go_round_by_rank() {
        let mut order = Order::default();
        order.rank(C, -1);
        for mailbox in [A, B, C] {
            order.add(mailbox, false);
        }
        let mut served = Vec::new();
        for _ in 0..6 {
            let (mailbox, _) = order.take(1, 1).expect("somebody waits");
            served.push(mailbox);
            order.done(mailbox);
            if mailbox != C {
                // It has more.
                order.add(mailbox, false);
            }
        }
        assert_eq!(served, [C, A, B, A, B, A]);
    }

    #[test]
    fn one_shipment_of_a_mailbox_at_a_time_and_one_that_failed_rests() {
        let mut order = Order::default();
        order.add(A, false);
        assert_eq!(order.take(8, 8), Some((A, false)));
        order.add(A, false);
        assert_eq!(order.take(8, 8), None);
        order.failed(A, false);
        assert_eq!(order.take(8, 8), None);
        order.add(B, false);
        assert_eq!(order.take(1, 1), Some((B, false)));
        order.done(B);
        order.rested(A);
        assert_eq!(order.take(8, 8), Some((A, false)));
    }
}
