//! Numbers of one standby folder, raised through the standby's management interface before messages are added.
//!
//! Keeps true: while an interface fails, appliers wait a while for it; after that the mirror goes on without it, since a
//! mirror that stands still is worse than UIDs that differ.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use understudy_doveadm::{Doveadm, Error, MailboxUpdate};
use understudy_protocol::Uid;

/// How long appliers wait for a management interface that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Since when management interfaces have been failing, by the name of their server.
#[derive(Default)]
pub(crate) struct Patience {
    failing: Mutex<HashMap<String, Instant>>,
}

impl Patience {
    /// An interface failed: why to go on without it, or the error again while it is worth waiting.
    pub(crate) fn failed(&self, server: &str, error: Error) -> Result<String, Error> {
        let since = {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            *failing.entry(server.to_owned()).or_insert_with(Instant::now)
        };
        if error.remedy().is_none() && since.elapsed() < PATIENCE {
            return Err(error);
        }
        let trouble = error.trouble(server);
        Ok(format!("{}. {}", trouble.reason, trouble.remedy))
    }

    pub(crate) fn answered(&self, server: &str) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }
}

/// The next UID of one standby folder, and the means to raise it.
pub(crate) struct Numbering<'a> {
    pub(crate) doveadm: Doveadm,
    pub(crate) patience: &'a Patience,
    pub(crate) server: &'a str,
    pub(crate) user: &'a str,
    /// The folder as the interface spells it.
    pub(crate) mailbox: String,
    pub(crate) next: Uid,
}

impl Numbering<'_> {
    /// Makes `uid` the next one given, unless it has been passed already. Answers why not, where it is better to go on.
    pub(crate) async fn reach(&mut self, uid: Uid) -> Result<Option<String>, Error> {
        if uid <= self.next {
            return Ok(None);
        }
        let update = MailboxUpdate {
            user: self.user.to_owned(),
            mailbox: self.mailbox.clone(),
            min_next_uid: Some(uid),
            ..MailboxUpdate::default()
        };
        metrics::counter!("understudy_manage_calls_total").increment(1);
        let answer = match self.doveadm.mailbox_update(&[update]).await {
            Ok(mut answers) => answers.pop().unwrap_or(Ok(())),
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => {
                self.patience.answered(self.server);
                self.next = uid;
                Ok(None)
            }
            Err(error) => self.patience.failed(self.server, error).map(Some),
        }
    }

    /// A message got this UID.
    pub(crate) fn given(&mut self, uid: Uid) {
        self.next = self.next.max(Uid(uid.0.saturating_add(1)));
    }
}
