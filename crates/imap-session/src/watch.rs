//! Learning that something may have changed. Hints only: what changed is asked by `sweep` and `changes`.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{Error, FolderName, Result, Session, line::Line};

/// Hints that came in since the last [`Session::noop`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Something in the mailbox may have changed.
    pub something: bool,
    /// Folders the server named; not all of those that changed.
    pub folders: Vec<FolderName>,
    /// The server gave up pushing (RFC 5465 §5.8): [`Session::notify_all`] again.
    pub overflowed: bool,
}

impl Session {
    /// Asks whether anything happened; returns every hint since the last time. On Dovecot this also makes a NOTIFY
    /// connection that went deaf hear again.
    pub async fn noop(&mut self) -> Result<Noticed> {
        self.conversation.begin()?;
        let tag = self.send_noop().await?;
        // Dovecot sends the hints and the verdict apart, and its kernel holds the second back until ours acknowledges the
        // first: 40 ms later, or with the next thing we say. So once hints have come, we say something.
        let outcome = match self.conversation.first_verdict(tag).await? {
            Some(outcome) => outcome,
            None => {
                let nudge = self.send_noop().await?;
                let outcome = self.conversation.wait_for_verdict(tag, &mut |_, _| Ok(false)).await?;
                self.conversation.wait_for_verdict(nudge, &mut |_, _| Ok(false)).await?.ok("NOOP")?;
                outcome
            }
        };
        self.conversation.finish();
        outcome.ok("NOOP")?;
        Ok(self.conversation.take_noticed())
    }

    async fn send_noop(&mut self) -> Result<u64> {
        let tag = self.conversation.next_tag();
        self.conversation.queue(format!("u{tag} NOOP\r\n").as_bytes());
        self.conversation.flush().await?;
        Ok(tag)
    }

    /// Has the server push hints about every personal folder from now on. Open no folder on this session: Dovecot then
    /// keeps every second hint to itself.
    pub async fn notify_all(&mut self) -> Result<()> {
        if !self.offers("NOTIFY") {
            return Err(Error::Unsupported("NOTIFY"));
        }
        let events = "MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange";
        let line = Line::new(format!("NOTIFY SET STATUS (PERSONAL ({events}))"));
        // The STATUS of every folder comes first; that is how it was, not how it changed.
        let outcome = self.conversation.ask(line, &mut |_, said| Ok(said.data("STATUS").is_some())).await?;
        outcome.ok("NOTIFY").map(drop)
    }

    /// Waits until something comes in unasked: `true`; `false` after `timeout`. What came in before this call and was
    /// not yet told of counts too. May be dropped at any time without loss.
    pub async fn wait_for_hint(&mut self, timeout: Duration) -> Result<bool> {
        if self.conversation.is_interrupted() {
            return Err(Error::Interrupted);
        }
        self.hint_before(Instant::now() + timeout).await
    }

    /// IDLE on the open folder until something comes in unasked: `true`; `false` after `timeout`, which should stay
    /// below 29 minutes (RFC 2177). Not to be dropped: the session is then interrupted.
    pub async fn idle(&mut self, timeout: Duration) -> Result<bool> {
        if !self.offers("IDLE") {
            return Err(Error::Unsupported("IDLE"));
        }
        self.conversation.begin()?;
        let deadline = Instant::now() + timeout;
        let tag = self.conversation.next_tag();
        self.conversation.queue(format!("u{tag} IDLE\r\n").as_bytes());
        self.conversation.flush().await?;
        if let Some(outcome) = self.conversation.wait_for_continue(tag, 0, &mut |_, _| Ok(false)).await? {
            self.conversation.finish();
            outcome.ok("IDLE")?;
            return Err(Error::Protocol("it ended an IDLE that had not begun"));
        }
        let hint = self.hint_before(deadline).await?;
        self.conversation.queue(b"DONE\r\n");
        self.conversation.flush().await?;
        let outcome = self.conversation.wait_for_verdict(tag, &mut |_, _| Ok(false)).await?;
        self.conversation.finish();
        outcome.ok("IDLE")?;
        Ok(hint)
    }

    async fn hint_before(&mut self, deadline: Instant) -> Result<bool> {
        loop {
            self.conversation.take_pushes()?;
            if self.conversation.take_hint() {
                return Ok(true);
            }
            self.conversation.framer().shrink();
            match timeout_at(deadline, self.conversation.fill_without_deadline()).await {
                Ok(filled) => filled?,
                Err(_) => return Ok(false),
            }
        }
    }
}
