//! Keeps appliers away from mailboxes that change sides: from the flip on, whatever is on the standby is its user's.
//!
//! In: the mailboxes. Out: a guard. Keeps true: while the guard lives no folder of these is rebuilt, and a rebuild under way is given
//! up before it takes a folder's place; once it has stopped a mailbox, no applier is at work in it.
//! Not here: what appliers do (`applier`), and whose turn it is (`dispatcher`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use understudy_protocol::MailboxId;

use crate::dispatcher::Applying;

/// How many want it of each mailbox. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Quiets {
    wanted: Arc<Mutex<Wanted>>,
}

#[derive(Default)]
struct Wanted {
    quiet: HashMap<MailboxId, usize>,
    stopped: HashMap<MailboxId, usize>,
}

impl Quiets {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is no folder of this mailbox to be rebuilt now?
    pub(crate) fn is_quiet(&self, mailbox: MailboxId) -> bool {
        self.wanted().quiet.contains_key(&mailbox)
    }

    /// Is no applier to begin with this mailbox?
    pub(crate) fn is_stopped(&self, mailbox: MailboxId) -> bool {
        self.wanted().stopped.contains_key(&mailbox)
    }
}

/// While it lives, its mailboxes are quiet.
pub(crate) struct Quiet {
    applying: Applying,
    mailboxes: Vec<MailboxId>,
    stopped: bool,
}

impl Quiet {
    pub(crate) fn over(applying: &Applying, mailboxes: Vec<MailboxId>) -> Self {
        count(&mut applying.quiets().wanted().quiet, &mailboxes);
        Self { applying: applying.clone(), mailboxes, stopped: false }
    }

    /// Lets no applier begin any more, and waits until none is at work. Answers the mailboxes in which one still is after `patience`.
    pub(crate) async fn stop(&mut self, patience: Duration) -> Vec<MailboxId> {
        if !self.stopped {
            self.stopped = true;
            count(&mut self.applying.quiets().wanted().stopped, &self.mailboxes);
        }
        let deadline = Instant::now() + patience;
        let mut at_work = Vec::new();
        for mailbox in &self.mailboxes {
            while self.applying.is_under_way(*mailbox) {
                let progress = self.applying.progress(*mailbox);
                let ended = progress.notified();
                if self.applying.is_under_way(*mailbox) && timeout_at(deadline, ended).await.is_err() {
                    at_work.push(*mailbox);
                    break;
                }
            }
        }
        at_work
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let mut wanted = self.applying.quiets().wanted();
        uncount(&mut wanted.quiet, &self.mailboxes);
        if self.stopped {
            uncount(&mut wanted.stopped, &self.mailboxes);
        }
        drop(wanted);
        self.applying.look_again();
    }
}

fn count(counts: &mut HashMap<MailboxId, usize>, mailboxes: &[MailboxId]) {
    for mailbox in mailboxes {
        *counts.entry(*mailbox).or_default() += 1;
    }
}

fn uncount(counts: &mut HashMap<MailboxId, usize>, mailboxes: &[MailboxId]) {
    for mailbox in mailboxes {
        if let Some(count) = counts.get_mut(mailbox) {
            *count -= 1;
            if *count == 0 {
                counts.remove(mailbox);
            }
        }
    }
}
