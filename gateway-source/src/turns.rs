//! Whose first copy is read next: so many at once from one primary, by rank, then who has waited longest.
//!
//! In: mailboxes that have something left to copy, their ranks. Out: turns of about a second each, one after the other.
//! Keeps true: however many mailboxes are protected at once, a primary is read by few, and what is captured beyond what the journal may hold
//! is that of few; a primary that hangs takes no turn of another.
//! Not here: live changes, which never wait for a turn; the order on the link (`order`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use understudy_protocol::MailboxId;

/// First copies that are read at once from one primary.
pub(crate) const AT_ONCE: usize = 16;

/// The turns of all first copies. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Turns {
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lines: HashMap<String, Line>,
    ranks: HashMap<MailboxId, i32>,
    tickets: u64,
}

/// Who waits at one primary.
#[derive(Default)]
struct Line {
    /// Turns that are taken.
    taken: usize,
    /// The least comes first: rank, then ticket.
    waiting: BTreeMap<(i32, u64), Waiting>,
}

struct Waiting {
    mailbox: MailboxId,
    sender: oneshot::Sender<Turn>,
}

/// Leave to read until it is dropped; then somebody else has it.
pub(crate) struct Turn {
    turns: Turns,
    server: String,
    /// False once nobody is to have it after us.
    held: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.held {
            self.turns.pass_on(&self.server);
        }
    }
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lower is served earlier; who waits already moves in the line.
    pub(crate) fn rank(&self, mailbox: MailboxId, priority: i32) {
        let mut state = self.state();
        let before = state.ranks.insert(mailbox, priority).unwrap_or_default();
        if before == priority {
            return;
        }
        for line in state.lines.values_mut() {
            let waits = |one: &Waiting| one.mailbox == mailbox && !one.sender.is_closed();
            let place = line.waiting.iter().find_map(|(place, one)| waits(one).then_some(*place));
            if let Some((_, ticket)) = place
                && let Some(waiting) = line.waiting.remove(&(before, ticket))
            {
                line.waiting.insert((priority, ticket), waiting);
            }
        }
    }

    /// Waits for a turn at this primary. Whoever gives up waiting loses its place.
    pub(crate) async fn take(&self, server: &str, mailbox: MailboxId) -> Turn {
        let receiver = {
            let mut state = self.state();
            state.tickets += 1;
            let place = (state.ranks.get(&mailbox).copied().unwrap_or_default(), state.tickets);
            let line = state.lines.entry(server.to_owned()).or_default();
            if line.taken < AT_ONCE {
                line.taken += 1;
                return self.turn(server, true);
            }
            let (sender, receiver) = oneshot::channel();
            line.waiting.insert(place, Waiting { mailbox, sender });
            receiver
        };
        // A sender is dropped only with all there is.
        receiver.await.unwrap_or_else(|_| self.turn(server, false))
    }

    fn turn(&self, server: &str, held: bool) -> Turn {
        Turn { turns: self.clone(), server: server.to_owned(), held }
    }

    /// The next one that still waits has the turn, or nobody.
    fn pass_on(&self, server: &str) {
        loop {
            let next = {
                let mut state = self.state();
                let Some(line) = state.lines.get_mut(server) else { return };
                let next = line.waiting.pop_first();
                if next.is_none() {
                    line.taken = line.taken.saturating_sub(1);
                    if line.taken == 0 {
                        state.lines.remove(server);
                    }
                }
                next
            };
            let Some((_, next)) = next else { return };
            match next.sender.send(self.turn(server, true)) {
                Ok(()) => return,
                // It went away: not dropped as a turn, or each that went would nest in the one before.
                Err(mut turn) => turn.held = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, task::Poll};

    use futures_util::poll;

    use super::*;

    type Waits<'t> = Pin<Box<dyn Future<Output = Turn> + 't>>;

    const SERVER: &str = "mail-a";

    /// All turns of the primary taken.
    async fn all_taken(turns: &Turns) -> Vec<Turn> {
        let mut taken = Vec::new();
        for mailbox in 0..AT_ONCE {
            taken.push(turns.take(SERVER, MailboxId(1000 + mailbox as i64)).await);
        }
        taken
    }

    /// Somebody in the line.
    async fn waits<'t>(turns: &'t Turns, mailbox: i64) -> Waits<'t> {
        let mut waits: Waits<'t> = Box::pin(turns.take(SERVER, MailboxId(mailbox)));
        assert!(poll!(&mut waits).is_pending(), "{mailbox} has a turn");
        waits
    }

    /// Which of them has a turn now; the others wait on.
    async fn served(line: &mut Vec<(i64, Waits<'_>)>) -> (i64, Turn) {
        let mut at = 0;
        loop {
            let (mailbox, waits) = &mut line[at];
            if let Poll::Ready(turn) = poll!(waits) {
                let mailbox = *mailbox;
                drop(line.remove(at));
                return (mailbox, turn);
            }
            at += 1;
        }
    }

    #[tokio::test]
    async fn turns_go_by_rank_and_then_to_whoever_has_waited_longest() {
        let turns = Turns::default();
        turns.rank(MailboxId(4), -1);
        let mut taken = all_taken(&turns).await;
        let mut line = Vec::new();
        for mailbox in [1, 2, 3, 4, 5] {
            line.push((mailbox, waits(&turns, mailbox).await));
        }
        turns.rank(MailboxId(3), -2);
        turns.rank(MailboxId(1), 7);
        let mut order = Vec::new();
        let mut turn = taken.pop();
        while !line.is_empty() {
            drop(turn.take());
            let (mailbox, next) = served(&mut line).await;
            order.push(mailbox);
            turn = Some(next);
        }
        assert_eq!(order, [3, 4, 2, 5, 1]);
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_no_turn_along_and_another_primary_has_its_own() {
        let turns = Turns::default();
        let mut taken = all_taken(&turns).await;
        let gone = waits(&turns, 1).await;
        let mut stays = waits(&turns, 2).await;
        drop(gone);
        drop(taken.pop());
        let Poll::Ready(stays) = poll!(&mut stays) else { panic!("it went to nobody") };
        // Sent and not taken: handed on all the same.
        let (sent, mut next) = (waits(&turns, 3).await, waits(&turns, 4).await);
        drop(taken.pop());
        drop(sent);
        let Poll::Ready(next) = poll!(&mut next) else { panic!("it went along") };

        let _elsewhere = turns.take("mail-b", MailboxId(5)).await;
        drop((stays, next, taken));
        assert_eq!(turns.state().lines.keys().collect::<Vec<_>>(), ["mail-b"]);
    }
}
