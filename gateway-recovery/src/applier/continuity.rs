//! The primary's UIDVALIDITY, UIDs and MODSEQ on the standby, where its management interface can set them.
//!
//! Keeps true: a folder's MODSEQ is raised to the primary's before anything is changed in it: a mail program that comes
//! from the primary then sees every change. UIDVALIDITY is set while the folder is empty and not open here. A folder is
//! `kept` only as long as every message got the UID it has on the primary.
//! Not here: making good what was lost (`rebuild`).

use understudy_database::continuity::Continuity;
use understudy_doveadm::MailboxUpdate;
use understudy_failpoint as failpoint;
use understudy_imap_session::{FolderName, Selected};
use understudy_protocol::{AddedMessage, FolderId, FolderPosition, ModSeq, Transaction, Uid, UidValidity};

use super::Work;
use crate::{append::Outcome, numbering::Numbering, standby::Manage};

/// How far the standby's MODSEQ is ahead of the primary's at least: what changes on the primary between the opening of a
/// folder and the fetching of its messages travels under the MODSEQ of the opening.
const MOD_SEQ_SLACK: u64 = 50;
/// How much further it is raised at once, so that most transactions find it high enough.
const MOD_SEQ_STRIDE: u64 = 250;

/// Numbers of a folder to raise before it is worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Raise {
    uid_validity: Option<UidValidity>,
    uid_next: Option<Uid>,
    mod_seq: Option<ModSeq>,
}

impl<'a> Work<'a> {
    /// The means to give a folder's messages their UIDs; `None` where it has no continuity to keep.
    pub(super) fn numbering(&self, folder: FolderId) -> Option<Numbering<'a>> {
        let known = self.folders.get(&folder).filter(|known| known.continuity == Continuity::Kept)?;
        let Manage::Yes(doveadm) = self.standby.manage() else { return None };
        Some(Numbering {
            doveadm: doveadm.clone(),
            patience: &self.applier.patience,
            server: &self.target.standby.name,
            user: &self.target.address,
            mailbox: FolderName::new(known.standby_name.as_str()).to_utf8(),
            next: known.standby_uid_next,
        })
    }
}

/// What the standby's HIGHESTMODSEQ must have reached before changes up to this position are applied.
pub(super) fn floor(position: &FolderPosition) -> Option<ModSeq> {
    let highest = position.mod_seq.max(position.seen_mod_seq);
    (highest > ModSeq(0)).then(|| ModSeq(highest.0.saturating_add(MOD_SEQ_SLACK)))
}

impl Work<'_> {
    /// Notes how high a transaction wants each folder's MODSEQ.
    pub(super) fn take_floors(&mut self, transaction: &Transaction) {
        let floors = transaction.position.folders.iter();
        self.floors = floors.filter_map(|(folder, position)| Some((*folder, floor(position)?))).collect();
        for folder in self.floors.keys().copied().collect::<Vec<_>>() {
            self.want_floor(folder);
        }
    }

    fn want_floor(&mut self, folder: FolderId) {
        let (Some(&floor), Some(known)) = (self.floors.get(&folder), self.folders.get(&folder)) else { return };
        if known.continuity == Continuity::Kept && known.standby_mod_seq < floor {
            self.raises.entry(folder).or_default().mod_seq = Some(ModSeq(floor.0.saturating_add(MOD_SEQ_STRIDE)));
        }
    }

    /// UIDs below this have been given on the primary, whether or not there are messages.
    pub(super) fn want_uid_next(&mut self, folder: FolderId, uid_next: Uid) {
        let Some(known) = self.folders.get(&folder) else { return };
        if known.continuity == Continuity::Kept && known.standby_uid_next < uid_next {
            self.raises.entry(folder).or_default().uid_next = Some(uid_next);
        }
    }

    /// How a folder begins that was just created or found on the standby.
    pub(super) fn begin_continuity(&mut self, folder: FolderId, selected: &Selected, shared: bool) {
        let Some(known) = self.folders.get_mut(&folder) else { return };
        let wanted = known.position.uid_validity;
        known.continuity = match self.standby.manage() {
            Manage::No => return,
            Manage::Broken(reason) => Continuity::Lost { reason: reason.clone() },
            Manage::Yes(_) if shared => Continuity::Lost {
                reason: "the primary gave the folder a new UIDVALIDITY, or it was deleted and created again".to_owned(),
            },
            Manage::Yes(_) if selected.exists > 0 && selected.uid_validity != wanted => {
                Continuity::Lost { reason: "the standby's folder held messages before the primary's came".to_owned() }
            }
            Manage::Yes(_) => Continuity::Kept,
        };
        known.standby_mod_seq = selected.mod_seq;
        let kept = known.continuity == Continuity::Kept;
        self.effects.folders.insert(folder, known.clone());
        self.effects.continuity.push(folder);
        if kept && selected.uid_validity != wanted {
            self.raises.entry(folder).or_default().uid_validity = Some(wanted);
        }
        self.want_floor(folder);
    }

    /// Raises all that is wanted, in one request.
    pub(super) async fn raise(&mut self) -> anyhow::Result<()> {
        if self.raises.is_empty() {
            return Ok(());
        }
        let Manage::Yes(doveadm) = self.standby.manage().clone() else {
            self.raises.clear();
            return Ok(());
        };
        let mut wanted = Vec::new();
        let mut updates = Vec::new();
        for (folder, raise) in std::mem::take(&mut self.raises) {
            let Some(known) = self.folders.get(&folder) else { continue };
            let name = FolderName::new(known.standby_name.as_str());
            if raise.uid_validity.is_some() {
                // Dovecot ends sessions that have a folder open whose UIDVALIDITY changes.
                self.standby.close_if(&name).await?;
            }
            updates.push(MailboxUpdate {
                user: self.target.address.clone(),
                mailbox: name.to_utf8(),
                uid_validity: raise.uid_validity,
                min_next_uid: raise.uid_next,
                min_highest_mod_seq: raise.mod_seq,
            });
            wanted.push((folder, raise));
        }
        metrics::counter!("understudy_manage_calls_total").increment(1);
        let server = &self.target.standby.name;
        match doveadm.mailbox_update(&updates).await {
            Ok(answers) => {
                failpoint::here("uids.raised");
                self.applier.patience.answered(server);
                for ((folder, raise), answer) in wanted.into_iter().zip(answers) {
                    match answer {
                        Ok(()) => self.raised(folder, raise),
                        Err(error) => {
                            let trouble = error.trouble(server);
                            self.lose(folder, format!("{}. {}", trouble.reason, trouble.remedy));
                        }
                    }
                }
            }
            Err(error) => {
                let reason = self.applier.patience.failed(server, error)?;
                for (folder, _) in wanted {
                    self.lose(folder, reason.clone());
                }
            }
        }
        Ok(())
    }

    fn raised(&mut self, folder: FolderId, raise: Raise) {
        let Some(known) = self.folders.get_mut(&folder) else { return };
        if let Some(uid_validity) = raise.uid_validity {
            known.standby_uid_validity = uid_validity;
        }
        if let Some(uid_next) = raise.uid_next {
            known.standby_uid_next = known.standby_uid_next.max(uid_next);
        }
        if let Some(mod_seq) = raise.mod_seq {
            known.standby_mod_seq = known.standby_mod_seq.max(mod_seq);
        }
        self.effects.folders.insert(folder, known.clone());
    }

    /// A folder's messages have other UIDs than on the primary from here on.
    pub(super) fn lose(&mut self, folder: FolderId, reason: String) {
        let Some(known) = self.folders.get_mut(&folder).filter(|known| known.continuity == Continuity::Kept) else {
            return;
        };
        tracing::warn!(mailbox.id = %self.target.mailbox, folder.id = %folder, "A folder lost its UID continuity: {reason}");
        known.continuity = Continuity::Lost { reason };
        self.effects.folders.insert(folder, known.clone());
        self.effects.continuity.push(folder);
        self.raises.remove(&folder);
        self.standby.expire();
    }

    /// Looks whether messages got the UIDs that they have on the primary.
    pub(super) fn check_uids(
        &mut self,
        folder: FolderId,
        next: Uid,
        messages: &[AddedMessage],
        outcomes: &[Option<Outcome>],
    ) {
        let wrong = messages.iter().zip(outcomes).find_map(|(message, outcome)| match outcome {
            Some(Outcome::Stored(uid) | Outcome::Altered(uid, _)) if *uid != message.uid => Some((message.uid, *uid)),
            _ => None,
        });
        let Some((uid, got)) = wrong else { return };
        let reason = match uid < next {
            true => format!("message {uid} came after UIDs up to {} had been given on the standby", next.0 - 1),
            false => format!("message {uid} has UID {got} on the standby"),
        };
        self.lose(folder, reason);
    }
}
