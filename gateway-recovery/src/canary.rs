//! Canary mailboxes: at a set pace a message is written into them on the primary, and must be seen on the standby in time.
//!
//! In: the table of canaries. Out: messages on the primary, when each was seen, where the one that is late stopped.
//! Keeps true: at most one message is on its way; what was written is noted before, found again after a crash, and removed from the
//! primary when it has done its service; only our own messages are touched.
//! Not here: flagging mailboxes (`alarm`).

use std::{collections::HashSet, io, time::Duration};

use anyhow::Context as _;
use chrono::Utc;
use serde_json::json;
use sqlx::PgPool;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use understudy_database::{
    canary::{self, Message, Turn, Whereabouts},
    journal,
};
use understudy_failpoint as failpoint;
use understudy_imap_session::{Append, BodySink, Command, ContentSource, Error, FolderName, Selected, Tagged};
use understudy_protocol::{Change, FolderPath, MailboxId, Seq, Uid, UidSet, UidValidity, messages::Trouble};
use understudy_replication::trouble::explain;
use uuid::Uuid;

use crate::{alarm, standby::Standby};

/// How often it is looked whose turn it is.
const POLL: Duration = Duration::from_secs(1);
/// Between two looks at the standby.
const LOOK: Duration = Duration::from_millis(250);
/// A canary that is late, or could not be written, is looked after again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// A server that does not let us in within this is not there; nor is one that says nothing for so long. Sooner, where canaries may
/// take less.
const PATIENCE: Duration = Duration::from_secs(15);
const LEAST_PATIENCE: Duration = Duration::from_secs(5);
/// Canaries looked after at once.
const SIDE_BY_SIDE: usize = 8;
/// Messages whose removal failed before no more are written.
const LEFT_OVER: usize = 3;

/// The task that looks after canaries.
pub(crate) struct Keeper {
    pub(crate) pool: PgPool,
}

impl Keeper {
    /// Runs until `shutdown`; a turn broken off is taken up again after the next start.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut turns: JoinSet<MailboxId> = JoinSet::new();
        let mut busy: HashSet<MailboxId> = HashSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(ended) = turns.join_next() => {
                    match ended {
                        Ok(mailbox) => drop(busy.remove(&mailbox)),
                        // Which one it was is not known: none is kept from its next turn.
                        Err(_) => busy.clear(),
                    }
                }
                () = sleep(POLL) => {}
            }
            // A database that does not answer is reported by those who look after mailboxes.
            let Ok(due) = self.due().await else { continue };
            for mailbox in due {
                if turns.len() < SIDE_BY_SIDE && busy.insert(mailbox) {
                    let pool = self.pool.clone();
                    turns.spawn(async move {
                        if let Err(error) = take_turn(&pool, mailbox).await {
                            tracing::warn!(mailbox.id = %mailbox, error = format!("{error:#}"), "Could not look after a canary");
                            let _ = canary::rest(&pool, mailbox, AGAIN).await;
                        }
                        mailbox
                    });
                }
            }
        }
    }

    async fn due(&self) -> understudy_database::Result<Vec<MailboxId>> {
        let mut db = self.pool.begin().await?;
        let due = canary::due(&mut db).await?;
        db.commit().await?;
        Ok(due)
    }
}

fn patience(turn: &Turn) -> Duration {
    turn.within.clamp(LEAST_PATIENCE, PATIENCE)
}

/// Writes the next message unless one is on its way, and waits for that one as long as it may take.
async fn take_turn(pool: &PgPool, mailbox: MailboxId) -> anyhow::Result<()> {
    let mut db = pool.acquire().await?;
    let Some(mut turn) = canary::turn(&mut db, mailbox).await? else { return Ok(()) };
    drop(db);
    let on_its_way = turn.messages.iter().any(|message| !message.over && message.written_at.is_some());
    if turn.over || !on_its_way {
        if let Err(trouble) = tend(pool, &turn).await? {
            return could_not_write(pool, &turn, &trouble).await;
        }
        if turn.over {
            return Ok(canary::gone(pool, mailbox).await?);
        }
        let mut db = pool.acquire().await?;
        let Some(now) = canary::turn(&mut db, mailbox).await? else { return Ok(()) };
        turn = now;
    }
    let message = turn.messages.iter().find(|message| !message.over && message.written_at.is_some());
    let message = message.context("the canary was written and is not noted")?;
    // At least one look, however late it is.
    let left =
        message.written_at.map_or(Duration::ZERO, |at| (at + turn.within - Utc::now()).to_std().unwrap_or_default());
    let watched = watch(&turn, message, Instant::now() + left).await;
    let mut db = pool.begin().await?;
    if matches!(watched, Ok(true)) {
        let seconds = canary::seen(&mut db, mailbox, message.id).await?;
        metrics::histogram!("understudy_canary_seconds").record(seconds);
    } else {
        let facts = whereabouts(pool, mailbox, message).await?;
        let mut detail = alarm::detail(facts.place(), (Utc::now() - message.written_at.unwrap_or_default()).to_std()?);
        if let Err(error) = watched.as_ref()
            && facts.place() == "visible"
        {
            detail["reason"] = json!(explain(&turn.standby.name, error).reason);
        }
        if !turn.late {
            metrics::counter!("understudy_canaries_late_total").increment(1);
        }
        canary::late(&mut db, mailbox, &detail, AGAIN).await?;
    }
    Ok(db.commit().await?)
}

/// A canary that cannot be written for long is late too: nobody knows whether changes would come through.
async fn could_not_write(pool: &PgPool, turn: &Turn, trouble: &Trouble) -> anyhow::Result<()> {
    tracing::debug!(mailbox.id = %turn.mailbox, kind = trouble.kind, "Could not write a canary");
    let since = canary::failing(pool, turn.mailbox, AGAIN).await?;
    let failing = (Utc::now() - since).to_std().unwrap_or_default();
    if turn.over || (failing < turn.within && !trouble.fault) {
        return Ok(());
    }
    let mut detail = alarm::detail("primary", failing);
    (detail["reason"], detail["remedy"]) = (json!(trouble.reason), json!(trouble.remedy));
    let mut db = pool.begin().await?;
    canary::late(&mut db, turn.mailbox, &detail, AGAIN).await?;
    Ok(db.commit().await?)
}

/// At the primary: finds out what became of a message whose writing was broken off, writes the next one, removes those before it.
async fn tend(pool: &PgPool, turn: &Turn) -> anyhow::Result<Result<(), Trouble>> {
    let mut inbox = match Inbox::open(turn).await {
        Ok(inbox) => inbox,
        Err(trouble) => return Ok(Err(trouble)),
    };
    let tended = inbox.tend(pool, turn).await;
    match tended {
        Ok(()) => {
            inbox.primary.log_out().await;
            Ok(Ok(()))
        }
        Err(error) => match error.downcast::<Error>() {
            Ok(error) => Ok(Err(explain(&turn.primary.name, &error))),
            Err(error) => Err(error),
        },
    }
}

/// INBOX on the primary, open for writing.
struct Inbox {
    primary: Standby,
    name: FolderName,
    selected: Selected,
}

impl Inbox {
    async fn open(turn: &Turn) -> Result<Self, Trouble> {
        let server = &turn.primary;
        let tell = |error: Error| explain(&server.name, &error);
        let login = server.return_login.as_ref().unwrap_or(&server.login);
        let opened = timeout(patience(turn), Standby::at(server, login, &turn.address)).await;
        let mut primary = opened.unwrap_or(Err(Error::Timeout)).map_err(tell)?;
        primary.session().set_silence_limit(patience(turn));
        if !primary.session().capabilities().has("UIDPLUS") {
            return Err(tell(Error::Unsupported("UIDPLUS")));
        }
        let name = primary.session().name_for(&FolderPath::inbox());
        let selected = primary.session().select(&name).await.map_err(tell)?;
        let may_delete = |flags: &Vec<String>| flags.iter().any(|flag| flag.eq_ignore_ascii_case("\\Deleted"));
        match selected {
            Some(selected) if !selected.read_only && selected.permanent_flags.as_ref().is_none_or(may_delete) => {
                Ok(Self { primary, name, selected })
            }
            _ => Err(read_only(&server.name)),
        }
    }

    async fn tend(&mut self, pool: &PgPool, turn: &Turn) -> anyhow::Result<()> {
        let mut done: Vec<(i64, Option<Uid>)> = Vec::new();
        let mut waits = false;
        for message in &turn.messages {
            let uid = match message.primary_uid.filter(|_| message.primary_uid_validity == self.selected.uid_validity) {
                Some(uid) => Some(uid),
                None => self.find(message).await?,
            };
            match uid {
                Some(uid) if !message.over && !turn.over => {
                    canary::written(pool, message.id, uid).await?;
                    waits = true;
                }
                uid => done.push((message.id, uid)),
            }
        }
        if !turn.over && !waits && done.len() <= LEFT_OVER {
            self.write(pool, turn).await?;
        }
        let uids: UidSet = done.iter().filter_map(|(_, uid)| *uid).collect();
        if !uids.is_empty() {
            let verdicts = self.primary.session().run_all(&[Command::Expunge { uids }]).await?;
            if !verdicts.iter().all(|verdict| matches!(verdict, Tagged::Ok { .. })) {
                tracing::warn!(mailbox.id = %turn.mailbox, "The primary does not let us remove old canaries");
                anyhow::ensure!(done.len() <= LEFT_OVER, "{} canaries could not be removed", done.len());
                return Ok(());
            }
        }
        let ids: Vec<i64> = done.iter().map(|(id, _)| *id).collect();
        Ok(canary::removed(pool, &ids).await?)
    }

    /// A message whose UID is not known, if it is there.
    async fn find(&mut self, message: &Message) -> Result<Option<Uid>, Error> {
        let same = message.primary_uid_validity == self.selected.uid_validity;
        let from = if same { message.primary_uid_next } else { Uid(1) };
        find(&mut self.primary, from, &message.body).await
    }

    async fn write(&mut self, pool: &PgPool, turn: &Turn) -> anyhow::Result<()> {
        let body = compose();
        let (uid_validity, uid_next) = (self.selected.uid_validity, self.selected.uid_next);
        let id = canary::begin(pool, turn.mailbox, &body, uid_validity, uid_next).await?;
        failpoint::here("canary.begun");
        let append = Append {
            flags: vec!["\\Seen".to_owned()],
            internal_date: Utc::now().format("%d-%b-%Y %H:%M:%S +0000").to_string(),
            size: body.len() as u64,
        };
        let appended = self.primary.session().append_batch(&self.name, &[append], &mut One(&body)).await?;
        failpoint::here("canary.appended");
        let uid = match appended.uids.first() {
            Some(&uid) => uid,
            None => find(&mut self.primary, uid_next, &body)
                .await?
                .context("the primary took a canary and does not show it")?,
        };
        Ok(canary::written(pool, id, uid).await?)
    }
}

/// The newest message with these octets in the open folder, from this UID on.
async fn find(on: &mut Standby, from: Uid, body: &[u8]) -> Result<Option<Uid>, Error> {
    let rows = on.session().rows(&UidSet::range(from, Uid(u32::MAX))).await?;
    let size = body.len() as u64;
    let candidates: UidSet = rows.iter().filter(|row| row.uid >= from && row.size == size).map(|row| row.uid).collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let mut same = Same { body, at: None, found: None };
    on.session().bodies(&candidates, &mut same).await?;
    Ok(same.found)
}

/// Looks at the standby until the message is there or `until` has passed, at least once.
async fn watch(turn: &Turn, message: &Message, until: Instant) -> Result<bool, Error> {
    let opened = timeout(patience(turn), Standby::at(&turn.standby, &turn.standby.login, &turn.standby_address)).await;
    let mut standby = opened.unwrap_or(Err(Error::Timeout))?;
    standby.session().set_silence_limit(patience(turn));
    let inbox = standby.session().name_for(&FolderPath::inbox());
    let mut read: Option<(UidValidity, Uid)> = None;
    loop {
        let selected = standby.examine(&inbox).await?;
        if let Some(now) = selected
            && read != Some((now.uid_validity, now.uid_next))
        {
            let from = read.filter(|(uid_validity, _)| *uid_validity == now.uid_validity).map_or(Uid(1), |read| read.1);
            if find(&mut standby, from, &message.body).await?.is_some() {
                standby.log_out().await;
                return Ok(true);
            }
            read = Some((now.uid_validity, now.uid_next));
        }
        if Instant::now() >= until {
            standby.log_out().await;
            return Ok(false);
        }
        sleep(LOOK).await;
    }
}

/// What is known of a message that did not arrive.
#[derive(Clone, Copy, Debug)]
struct Facts {
    known: Whereabouts,
    /// The last number received before it was written.
    before: Seq,
    /// The transaction that brings it, where one was received.
    arrived: Option<Seq>,
}

impl Facts {
    /// The place where it stopped.
    fn place(&self) -> &'static str {
        match self.arrived {
            Some(seq) if seq <= self.known.applied => "visible",
            Some(_) => "standby",
            None if !self.known.heard && self.known.connections == 0 => "link",
            None if !self.known.heard => "source_gateway",
            None if self.known.captured > self.known.received.max(self.before) => "shipping",
            None => "capture",
        }
    }
}

async fn whereabouts(pool: &PgPool, mailbox: MailboxId, message: &Message) -> anyhow::Result<Facts> {
    let known = canary::whereabouts(pool, mailbox, message.written_at.unwrap_or_default()).await?;
    let received = journal::between(pool, mailbox, message.received, known.received).await?;
    let ours = |change: &Change| match change {
        Change::MessageAdded(added) => {
            Some(added.uid) == message.primary_uid && added.content.size == message.body.len() as u64
        }
        _ => false,
    };
    let arrived = received.iter().find(|transaction| transaction.changes.iter().any(ours));
    Ok(Facts { known, before: message.received, arrived: arrived.map(|transaction| transaction.seq) })
}

fn read_only(server: &str) -> Trouble {
    Trouble {
        kind: "primary_read_only".to_owned(),
        reason: format!("{server} lets our log-in read the canary mailbox and not write to it"),
        remedy: format!(
            "Give the server a log-in that may write: `understudy server change {server} --return-user USER \
             --return-password-file FILE`, or `return_login` in the configuration."
        ),
        fault: true,
    }
}

/// A message like no other.
fn compose() -> Vec<u8> {
    let (id, now) = (Uuid::now_v7(), Utc::now());
    format!(
        "From: Understudy <canary@understudy.invalid>\r\nDate: {}\r\nSubject: Canary of {}\r\nMessage-ID: <{id}@understudy.invalid>\r\n\
         Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         Understudy wrote this message to see whether new mail of this mailbox reaches its\r\n\
         standby. It is removed by itself when the next one has been written.\r\n",
        now.to_rfc2822(),
        now.format("%Y-%m-%d %H:%M:%S UTC"),
    )
    .into_bytes()
}

/// The octets of one message.
struct One<'a>(&'a [u8]);

impl ContentSource for One<'_> {
    async fn read(&mut self, _index: usize, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Finds the body that is the same.
struct Same<'a> {
    body: &'a [u8],
    /// The message at hand, and how much of it was the same; none once it differed.
    at: Option<(Uid, usize)>,
    found: Option<Uid>,
}

impl BodySink for Same<'_> {
    fn start(&mut self, uid: Uid, _size: u64) -> io::Result<()> {
        self.at = Some((uid, 0));
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at = self.at.take().and_then(|(uid, same)| {
            self.body.get(same..same + bytes.len()).filter(|ours| *ours == bytes).map(|_| (uid, same + bytes.len()))
        });
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some((uid, same)) = self.at.take()
            && same == self.body.len()
        {
            self.found = self.found.max(Some(uid));
        }
        Ok(())
    }

    fn missing(&mut self, _uid: Uid) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_arrive_is_found_where_it_stopped() {
        let facts = |numbers: [i64; 3], heard, connections, arrived: Option<i64>| {
            let [captured, received, applied] = numbers.map(Seq);
            let known = Whereabouts { captured, received, applied, heard, connections };
            Facts { known, before: Seq(4), arrived: arrived.map(Seq) }.place()
        };
        assert_eq!(facts([4, 4, 4], false, 0, None), "link");
        assert_eq!(facts([4, 4, 4], false, 1, None), "source_gateway");
        assert_eq!(facts([4, 4, 4], true, 1, None), "capture");
        // Something else was captured and applied.
        assert_eq!(facts([5, 5, 5], true, 1, None), "capture");
        assert_eq!(facts([5, 4, 4], true, 1, None), "shipping");
        assert_eq!(facts([5, 5, 4], true, 1, Some(5)), "standby");
        assert_eq!(facts([5, 5, 5], true, 1, Some(5)), "visible");
    }

    #[test]
    fn only_the_same_octets_are_ours() {
        let body = compose();
        let mut other = body.clone();
        *other.last_mut().unwrap() = b'!';
        let mut same = Same { body: &body, at: None, found: None };
        for (uid, bytes) in [(1, &other[..]), (2, &body[..]), (3, &body[..9])] {
            same.start(Uid(uid), bytes.len() as u64).unwrap();
            for chunk in bytes.chunks(100) {
                same.chunk(chunk).unwrap();
            }
            same.end().unwrap();
        }
        assert_eq!(same.found, Some(Uid(2)));
    }
}
