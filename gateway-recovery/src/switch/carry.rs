//! Brings messages from one side to the other through the content store.
//!
//! Keeps true: what is fetched is durable before it is given away; what was appended has been read back and has the digest
//! it should have, or is said to be altered or refused.

use std::io;

use sqlx::PgPool;
use understudy_database::content;
use understudy_imap_session::{BodySink, Command, Error, FolderName, Row, Tagged};
use understudy_protocol::{AddedMessage, Change, ContentRef, Digest, FolderId, TenantId, Uid, UidSet};
use understudy_replication::{
    fidelity::BothDigests,
    inventory::Digests,
    plan::{Step, is_system_flag, plan},
};

use super::delivery::Delivery;
use crate::{
    append::{self, Outcome},
    standby::Standby,
    store::{Receiving, Store},
};

/// Bodies fetched before they are synced.
const SLICE: usize = 500;

/// A message as it was fetched.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) row: Row,
    pub(crate) content: ContentRef,
    pub(crate) loose: Digest,
    /// What a mail exchanger handed over, where one did.
    pub(crate) delivery: Option<Digest>,
}

/// Where contents go and come from.
#[derive(Clone)]
pub(crate) struct Depot {
    pub(crate) pool: PgPool,
    pub(crate) store: Store,
    pub(crate) tenant: TenantId,
}

impl Depot {
    /// Fetches these messages of the open folder into the content store, ascending by UID. One that is gone is left out.
    pub(crate) async fn fetch(&self, from: &mut Standby, uids: &UidSet) -> anyhow::Result<Vec<Fetched>> {
        let all: Vec<Uid> = uids.iter().collect();
        let mut fetched = Vec::with_capacity(all.len());
        for slice in all.chunks(SLICE) {
            let slice: UidSet = slice.iter().copied().collect();
            let rows = from.session().rows(&slice).await?;
            let mut sink =
                Sink { receiving: self.store.begin(Some(self.tenant)).await?, current: None, done: Vec::new() };
            from.session().bodies(&slice, &mut sink).await?;
            let Sink { receiving, mut done, .. } = sink;
            let places = receiving.finish().await?;
            content::put(&self.pool, self.tenant, &places).await?;
            done.sort_by_key(|(uid, ..)| *uid);
            for row in rows {
                if let Ok(at) = done.binary_search_by_key(&row.uid, |(uid, ..)| *uid) {
                    let (_, content, loose, delivery) = done[at];
                    fetched.push(Fetched { row, content, loose, delivery });
                }
            }
        }
        Ok(fetched)
    }

    /// Appends messages to a folder in order; answers what became of each. The UIDs of `messages` are only names here.
    pub(crate) async fn bring(
        &self,
        to: &mut Standby,
        name: &FolderName,
        messages: &[AddedMessage],
    ) -> anyhow::Result<Vec<Outcome>> {
        let changes: Vec<Change> = messages.iter().cloned().map(Change::MessageAdded).collect();
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(messages.len());
        for step in plan(&changes) {
            match step {
                Step::Append { messages, .. } => outcomes.extend(self.append(to, name, &messages).await?),
                Step::SetFlags { uids, flags, .. } => {
                    let there: UidSet = messages
                        .iter()
                        .zip(&outcomes)
                        .filter(|(message, _)| uids.contains(message.uid))
                        .filter_map(|(_, outcome)| stored(outcome))
                        .collect();
                    change_flags(to, name, there, flags, Vec::new()).await?;
                }
                _ => {}
            }
        }
        Ok(outcomes)
    }

    async fn append(
        &self,
        to: &mut Standby,
        name: &FolderName,
        messages: &[AddedMessage],
    ) -> anyhow::Result<Vec<Outcome>> {
        let wanted: Vec<ContentRef> = messages.iter().map(|message| message.content).collect();
        let mut contents = self.store.contents(self.tenant, &wanted).await?;
        let references: Vec<&AddedMessage> = messages.iter().collect();
        let mut outcomes = append::append(to, name, &references, &mut contents, None).await?.outcomes;
        let there: UidSet = outcomes.iter().filter_map(stored).collect();
        if there.is_empty() {
            return Ok(outcomes);
        }
        to.select(name).await?;
        let mut digests = Digests::default();
        to.session().bodies(&there, &mut digests).await?;
        for (message, outcome) in messages.iter().zip(&mut outcomes) {
            if let Outcome::Stored(uid) = *outcome
                && digests.of(uid) != Some(message.content.digest)
            {
                *outcome = Outcome::Altered(uid, "it stored other bytes than it was given".to_owned());
            }
        }
        Ok(outcomes)
    }
}

/// Where a message is, if it is anywhere.
pub(crate) fn stored(outcome: &Outcome) -> Option<Uid> {
    match outcome {
        Outcome::Stored(uid) | Outcome::Altered(uid, _) => Some(*uid),
        Outcome::Refused(_) => None,
    }
}

/// Gives messages flags and takes some from them; every other flag stays as it is. Keywords that the server does not take are left out.
pub(crate) async fn change_flags(
    to: &mut Standby,
    name: &FolderName,
    uids: UidSet,
    added: Vec<String>,
    removed: Vec<String>,
) -> Result<(), Error> {
    if uids.is_empty() {
        return Ok(());
    }
    to.select(name).await?;
    if !added.is_empty() {
        let command = Command::AddFlags { uids: uids.clone(), flags: added.clone() };
        let verdicts = to.session().run_all(&[command]).await?;
        let flags: Vec<String> = added.into_iter().filter(|flag| is_system_flag(flag)).collect();
        if let Some(Tagged::No { .. } | Tagged::Bad { .. }) = verdicts.first()
            && !flags.is_empty()
        {
            run(to, Command::AddFlags { uids: uids.clone(), flags }, "UID STORE").await?;
        }
    }
    if !removed.is_empty() {
        run(to, Command::RemoveFlags { uids, flags: removed }, "UID STORE").await?;
    }
    Ok(())
}

/// Removes exactly these messages.
pub(crate) async fn expunge(from: &mut Standby, name: &FolderName, uids: UidSet) -> Result<(), Error> {
    if uids.is_empty() {
        return Ok(());
    }
    from.select(name).await?;
    run(from, Command::Expunge { uids }, "UID EXPUNGE").await
}

async fn run(on: &mut Standby, command: Command, what: &'static str) -> Result<(), Error> {
    for verdict in on.session().run_all(&[command]).await? {
        match verdict {
            Tagged::Ok { .. } => {}
            Tagged::No { code, text, .. } => return Err(Error::Refused { command: what, code, text, done: 0 }),
            Tagged::Bad { text } => return Err(Error::Bad { command: what, text }),
            Tagged::Unsupported { needs } => return Err(Error::Unsupported(needs)),
        }
    }
    Ok(())
}

/// An addition for [`Depot::bring`].
pub(crate) fn addition(folder: FolderId, fetched: &Fetched, flags: &[String]) -> AddedMessage {
    AddedMessage {
        folder,
        uid: fetched.row.uid,
        flags: flags.to_vec(),
        internal_date: fetched.row.internal_date.clone(),
        content: fetched.content,
    }
}

struct Sink {
    receiving: Receiving,
    current: Option<(Uid, BothDigests, Delivery)>,
    done: Vec<(Uid, ContentRef, Digest, Option<Digest>)>,
}

impl BodySink for Sink {
    fn start(&mut self, uid: Uid, size: u64) -> io::Result<()> {
        self.current = Some((uid, BothDigests::default(), Delivery::default()));
        self.receiving.unnamed(size)
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, digests, delivery)) = &mut self.current {
            digests.update(bytes);
            delivery.update(bytes);
        }
        self.receiving.write(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        let content = self.receiving.end_unnamed()?;
        if let Some((uid, digests, delivery)) = self.current.take() {
            self.done.push((uid, content, digests.finish().1, delivery.finish()));
        }
        Ok(())
    }

    fn missing(&mut self, _uid: Uid) {}
}
