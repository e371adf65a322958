//! Messages of the mirror, as steps of a transaction: added, flagged, removed.
//!
//! Keeps true: a message that is there already, from before or from before a crash, is taken over and not added again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use understudy_database::{
    journal::{self, Intent},
    mirror::{self, MirrorMessage, SetAside},
};
use understudy_failpoint as failpoint;
use understudy_imap_session::{Command, Error, Tagged};
use understudy_protocol::{AddedMessage, ContentRef, Digest, FolderId, Seq, Uid, UidSet, UidValidity};
use understudy_replication::plan::{Step, plan};

use super::{FIRST, REFUSED_BATCH, REFUSED_ROUND, Work, gives_again, is_another};
use crate::{
    append::{self, Outcome},
    strays::{self, Strays, Wanted},
};

impl Work<'_> {
    /// Puts a batch of additions into their folder, or takes over messages that are there already.
    pub(super) async fn append(&mut self, folder: FolderId, messages: &[AddedMessage]) -> anyhow::Result<()> {
        self.raise().await?;
        let name = self.name(folder)?;
        let wanted: Vec<ContentRef> = messages.iter().map(|message| message.content).collect();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; messages.len()];
        self.adopt_from_namesake(folder, messages, &mut outcomes).await?;
        self.adopt_strays(folder, messages, &wanted, &mut outcomes).await?;

        let next = self.folder(folder)?.standby_uid_next;
        let mut rest: Vec<usize> = (0..messages.len()).filter(|&index| outcomes[index].is_none()).collect();
        // One that comes too late to get its UID must not take another's.
        if self.numbering(folder).is_some() {
            rest.sort_by_key(|&index| (messages[index].uid < next, messages[index].uid));
        }
        if !rest.is_empty() {
            let wanted: Vec<ContentRef> = rest.iter().map(|&index| wanted[index]).collect();
            let (store, tenant) = (&self.applier.store, self.target.tenant);
            let mut contents = match wanted.iter().all(|content| self.places.contains_key(&content.digest)) {
                true => store.contents_at(tenant, &wanted, &self.places).await?,
                false => store.contents(tenant, &wanted).await?,
            };
            let to_append: Vec<&AddedMessage> = rest.iter().map(|&index| &messages[index]).collect();
            let mut numbering = self.numbering(folder);
            let done = append::append(&mut self.standby, &name, &to_append, &mut contents, numbering.as_mut()).await;
            let done = match done {
                // Numbers of a folder that is not there cannot be raised.
                Err(error)
                    if error.is::<understudy_doveadm::Error>() && self.standby.examine(&name).await?.is_none() =>
                {
                    return Err(self.reset(folder));
                }
                done => done?,
            };
            self.appended(folder, &done)?;
            if let Some(reason) = done.unraised {
                self.lose(folder, reason);
            }
            for (index, outcome) in rest.into_iter().zip(done.outcomes) {
                outcomes[index] = Some(outcome);
            }
        }
        self.check_uids(folder, next, messages, &outcomes);
        for (message, outcome) in messages.iter().zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|| Outcome::Refused("it was not tried".to_owned()));
            self.effects.added.push(mirrored(message, outcome));
        }
        Ok(())
    }

    /// Notes the folder's numbers after an append.
    pub(super) fn appended(&mut self, folder: FolderId, done: &append::Done) -> anyhow::Result<()> {
        let given = || {
            done.outcomes.iter().filter_map(|outcome| match outcome {
                Outcome::Stored(uid) | Outcome::Altered(uid, _) => Some(*uid),
                Outcome::Refused(_) => None,
            })
        };
        let (Some(uid_validity), Some(lowest), Some(highest)) = (done.uid_validity, given().min(), given().max())
        else {
            return Ok(());
        };
        let before = self.folder(folder)?.standby_uid_validity;
        // A folder that was restored as it had been before gives UIDs out again that are other messages' in the mirror.
        if before != UidValidity(0) && (before != uid_validity || gives_again(self.folder(folder)?, lowest)) {
            return Err(self.reset(folder));
        }
        let known = self.folders.get_mut(&folder).context("appended to a folder that is not there")?;
        known.standby_uid_validity = uid_validity;
        known.standby_uid_next = known.standby_uid_next.max(Uid(highest.0.saturating_add(1)));
        self.effects.folders.insert(folder, known.clone());
        Ok(())
    }

    /// A folder that came back under another UIDVALIDITY shares its standby folder with the one it replaces: what both
    /// have stays where it is.
    pub(super) async fn adopt_from_namesake(
        &mut self,
        folder: FolderId,
        messages: &[AddedMessage],
        outcomes: &mut [Option<Outcome>],
    ) -> anyhow::Result<()> {
        let name = self.folder(folder)?.standby_name.clone();
        let namesakes: Vec<FolderId> = self
            .folders
            .values()
            .filter(|other| other.folder != folder && other.selectable && other.standby_name == name)
            .map(|other| other.folder)
            .collect();
        for namesake in namesakes {
            let digests: Vec<Digest> = messages.iter().map(|message| message.content.digest).collect();
            let mut free = mirror::by_digest(self.pool(), self.mailbox(), namesake, &digests).await?;
            let taken: BTreeSet<Uid> = self
                .effects
                .expunged
                .iter()
                .filter(|(other, _)| *other == namesake)
                .flat_map(|(_, uids)| uids.iter())
                .collect();
            free.retain(|(uid, ..)| !taken.contains(uid));
            // Messages stay in their order: once one has to be appended, so has every later one.
            let mut highest = self.highest(folder).await?;
            for (message, outcome) in messages.iter().zip(outcomes.iter_mut()).filter(|(_, outcome)| outcome.is_none())
            {
                let fits = |(_, standby_uid, digest): &(Uid, Uid, Digest)| {
                    *digest == message.content.digest && Some(*standby_uid) > highest
                };
                let Some(at) = free.iter().position(fits) else { break };
                highest = Some(free[at].1);
                let (uid, standby_uid, _) = free.remove(at);
                self.effects.expunged.push((namesake, UidSet::range(uid, uid)));
                *outcome = Some(Outcome::Stored(standby_uid));
                self.restore_flags(folder, message, standby_uid).await?;
            }
        }
        Ok(())
    }

    /// The highest standby UID of a folder's messages, those of the transaction at hand included.
    async fn highest(&self, folder: FolderId) -> anyhow::Result<Option<Uid>> {
        let all = UidSet::range(Uid(1), Uid(u32::MAX));
        Ok(self.on_standby(folder, &all).await?.last())
    }

    /// Takes over strays with the same content.
    pub(super) async fn adopt_strays(
        &mut self,
        folder: FolderId,
        messages: &[AddedMessage],
        wanted: &[ContentRef],
        outcomes: &mut [Option<Outcome>],
    ) -> anyhow::Result<()> {
        let mailbox = self.mailbox();
        let mut free = std::mem::take(self.strays.of(&self.applier.pool, mailbox, folder).await?);
        if free.is_empty() {
            return Ok(());
        }
        let mut contents = self.applier.store.contents(self.target.tenant, wanted).await?;
        let mut adopted = Vec::new();
        let mut clipped = UidSet::default();
        for (index, message) in
            messages.iter().enumerate().filter(|(index, _)| outcomes[*index].is_none()).collect::<Vec<_>>()
        {
            let [loose, without_last] = strays::other_digests(&mut contents, index, message.content.size).await?;
            if !self.keeps_all
                && contents.last_byte(index).await? == Some(b'\r')
                && messages.iter().all(|m| m.content.digest != without_last)
            {
                // What a crash left of `append::append_padded`: the copy that lacks its CR gives way to an exact one.
                free.retain(|stray| {
                    let superfluous = stray.digest == without_last;
                    if superfluous {
                        clipped.insert(stray.standby_uid);
                    }
                    !superfluous
                });
            }
            let wanted = Wanted { uid: message.uid, digest: message.content.digest, loose_digest: Some(loose) };
            let Some((stray, exact)) = strays::take(&mut free, &wanted) else { continue };
            outcomes[index] = Some(if exact {
                Outcome::Stored(stray.standby_uid)
            } else {
                Outcome::Altered(stray.standby_uid, "the standby stored other bytes than it was given".to_owned())
            });
            self.effects.adopted.push((folder, stray.standby_uid));
            adopted.push((index, stray.standby_uid));
        }
        self.strays.found(folder, free);
        if !clipped.is_empty() {
            self.effects.adopted.extend(clipped.iter().map(|uid| (folder, uid)));
            self.open(folder).await?;
            self.run(&[Command::Expunge { uids: clipped }]).await?;
        }
        failpoint::here("strays.adopted");
        for (index, standby_uid) in adopted {
            self.restore_flags(folder, &messages[index], standby_uid).await?;
            if let Some(known) = self.folders.get_mut(&folder) {
                known.standby_uid_next = known.standby_uid_next.max(Uid(standby_uid.0.saturating_add(1)));
                self.effects.folders.insert(folder, known.clone());
            }
        }
        Ok(())
    }

    /// A message taken over may have other flags than the addition says.
    pub(super) async fn restore_flags(
        &mut self,
        folder: FolderId,
        message: &AddedMessage,
        uid: Uid,
    ) -> anyhow::Result<()> {
        self.open(folder).await?;
        let command = Command::StoreFlags { uids: UidSet::range(uid, uid), flags: message.flags.clone() };
        self.standby.session().run_all(&[command]).await?;
        Ok(())
    }

    /// Opens a folder of the mirror for writing, and makes sure it is still the one we filled.
    pub(super) async fn open(&mut self, folder: FolderId) -> anyhow::Result<()> {
        self.raise().await?;
        let name = self.name(folder)?;
        let selected = match self.standby.select(&name).await {
            Ok(Some(selected)) => selected,
            Ok(None) => return Ok(()),
            Err(error) => return Err(self.unless_gone(folder, error)),
        };
        if is_another(self.folder(folder)?, selected.uid_validity, selected.uid_next) {
            return Err(self.reset(folder));
        }
        let known = self.folders.get_mut(&folder).context("opened a folder that is not there")?;
        known.standby_mod_seq = known.standby_mod_seq.max(selected.mod_seq);
        known.standby_uid_validity = selected.uid_validity;
        Ok(())
    }

    /// Flags and removals of one folder, as many as follow each other, in one go.
    pub(super) async fn store(&mut self, folder: FolderId, steps: &[Step]) -> anyhow::Result<usize> {
        let mut commands = Vec::new();
        let mut taken = 0;
        for step in steps {
            match step {
                Step::SetFlags { folder: of, uids, flags } if *of == folder => {
                    let there = self.on_standby(folder, uids).await?;
                    if !there.is_empty() {
                        commands.push(Command::StoreFlags { uids: there, flags: flags.clone() });
                    }
                    self.set_flags(folder, uids, flags);
                }
                Step::Expunge { folder: of, uids } if *of == folder => {
                    let known = self.folder(folder)?.clone();
                    let going = self.parking.spare(&known, uids);
                    let there = self.on_standby(folder, &going).await?;
                    if !there.is_empty() {
                        commands.push(Command::Expunge { uids: there });
                    }
                    self.effects.added.retain(|added| added.folder != folder || !uids.contains(added.uid));
                    self.effects.expunged.push((folder, uids.clone()));
                    self.expunged = true;
                }
                _ => break,
            }
            taken += 1;
        }
        if !commands.is_empty() {
            self.open(folder).await?;
            self.run(&commands).await?;
        }
        Ok(taken)
    }

    /// Runs commands on the open folder. Flags that the standby does not take are set as far as it takes them.
    pub(super) async fn run(&mut self, commands: &[Command]) -> anyhow::Result<()> {
        failpoint::here("store.ready");
        let verdicts = self.standby.session().run_all(commands).await?;
        if commands.iter().any(|command| matches!(command, Command::Expunge { .. })) {
            failpoint::here("store.expunged");
        } else {
            failpoint::here("store.flagged");
        }
        for (command, verdict) in commands.iter().zip(verdicts) {
            let said = match verdict {
                Tagged::Ok { .. } => continue,
                Tagged::No { text, .. } | Tagged::Bad { text } => text,
                Tagged::Unsupported { needs } => return Err(Error::Unsupported(needs).into()),
            };
            let Command::StoreFlags { uids, flags } = command else {
                return Err(Error::Refused { command: "UID EXPUNGE", code: None, text: said, done: 0 }.into());
            };
            metrics::counter!("understudy_apply_errors_total", "reason" => "flags").increment(1);
            tracing::warn!(mailbox.id = %self.target.mailbox, count = uids.len(), "The standby did not take all keywords");
            self.store_what_is_taken(uids, flags).await?;
        }
        Ok(())
    }

    /// Where messages with these primary UIDs are, those of the transaction at hand included.
    pub(super) async fn on_standby(&self, folder: FolderId, uids: &UidSet) -> anyhow::Result<UidSet> {
        let of_now: Vec<&MirrorMessage> =
            self.effects.added.iter().filter(|added| added.folder == folder && uids.contains(added.uid)).collect();
        let mut there: UidSet = of_now.iter().filter_map(|added| added.standby_uid).collect();
        // While seeding all are of the transaction at hand, and the map need not be asked.
        if (of_now.len() as u64) < uids.len() {
            let known = mirror::standby_uids(self.pool(), self.mailbox(), folder, uids).await?;
            known.into_iter().for_each(|(_, standby_uid)| there.insert(standby_uid));
        }
        Ok(there)
    }

    pub(super) fn set_flags(&mut self, folder: FolderId, uids: &UidSet, flags: &[String]) {
        let mut of_now = 0;
        for added in &mut self.effects.added {
            if added.folder == folder && uids.contains(added.uid) {
                added.flags = flags.to_vec();
                of_now += 1;
            }
        }
        if of_now < uids.len() {
            self.effects.flags.push((folder, uids.clone(), flags.to_vec()));
        }
    }

    /// Tries messages again that the standby refused, where that may help now: those after the last ones tried, or all of them.
    pub(super) async fn retry_refused(&mut self, all: bool) -> anyhow::Result<()> {
        self.retry_folders().await?;
        let mut after = if all { FIRST } else { self.applier.refused_after(self.mailbox()) };
        let mut tried = 0;
        while all || tried < REFUSED_ROUND {
            let refused = mirror::refused(self.pool(), self.mailbox(), after, REFUSED_BATCH).await?;
            let Some(last) = refused.last() else {
                // Those at the beginning had their turn before.
                after = FIRST;
                break;
            };
            after = (last.folder, last.uid);
            tried += refused.len();
            self.retry(refused).await?;
        }
        self.applier.tried_refused(self.mailbox(), after);
        if all && tried > 0 {
            tracing::info!(mailbox.id = %self.mailbox(), count = tried, "Tried again what the standby had refused");
        }
        Ok(())
    }

    async fn retry(&mut self, refused: Vec<MirrorMessage>) -> anyhow::Result<()> {
        let mut by_folder: BTreeMap<FolderId, Vec<AddedMessage>> = BTreeMap::new();
        for message in refused {
            by_folder.entry(message.folder).or_default().push(addition(message));
        }
        let folders = by_folder.keys().map(|folder| {
            let known = self.folders.get(folder);
            let next = known.map_or(Uid(1), |known| known.standby_uid_next);
            (*folder, (known.map_or(UidValidity(0), |known| known.standby_uid_validity), next))
        });
        let intent = Intent { folders: folders.collect() };
        journal::begin(self.pool(), self.mailbox(), Seq(0), &intent).await?;
        failpoint::here("refused.intended");
        for (folder, messages) in by_folder {
            self.append(folder, &messages).await?;
            failpoint::here("refused.appended");
            let keywords: Vec<Step> =
                plan(&messages.into_iter().map(understudy_protocol::Change::MessageAdded).collect::<Vec<_>>())
                    .into_iter()
                    .filter(|step| matches!(step, Step::SetFlags { .. }))
                    .collect();
            if !keywords.is_empty() {
                self.store(folder, &keywords).await?;
            }
        }
        let effects = std::mem::take(&mut self.effects);
        let mut db = self.applier.pool.begin().await?;
        mirror::record(&mut db, self.target.mailbox, &effects).await?;
        journal::settle(&mut *db, self.target.mailbox).await?;
        failpoint::here("refused.written");
        db.commit().await?;
        failpoint::here("refused.committed");
        self.strays = Strays::default();
        Ok(())
    }
}

fn mirrored(message: &AddedMessage, outcome: Outcome) -> MirrorMessage {
    let (standby_uid, set_aside) = match outcome {
        Outcome::Stored(uid) => (Some(uid), None),
        Outcome::Altered(uid, reason) => (Some(uid), Some(SetAside::Altered { reason })),
        Outcome::Refused(reason) => (None, Some(SetAside::Refused { reason })),
    };
    MirrorMessage {
        folder: message.folder,
        uid: message.uid,
        standby_uid,
        content: message.content,
        flags: message.flags.clone(),
        internal_date: message.internal_date.clone(),
        set_aside,
    }
}

pub(super) fn addition(message: MirrorMessage) -> AddedMessage {
    AddedMessage {
        folder: message.folder,
        uid: message.uid,
        flags: message.flags,
        internal_date: message.internal_date,
        content: message.content,
    }
}
