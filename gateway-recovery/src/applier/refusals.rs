//! What a standby refuses to do with folders and flags, bridged where it can be.
//!
//! Keeps true: a refusal stops only what was refused; a failure that may pass is an error, so that it is tried again.

use understudy_database::mirror::MirrorFolder;
use understudy_imap_session::{Command, Error, FolderName, Tagged};
use understudy_protocol::{FolderId, FolderPath, Uid, UidSet, UidValidity};
use understudy_replication::plan::is_system_flag;

use super::{Work, unless_refused};

impl Work<'_> {
    /// A folder whose name the standby does not take: its messages are set aside, everything else goes on.
    pub(super) fn set_folder_aside(&mut self, folder: MirrorFolder, error: Error) -> anyhow::Result<()> {
        if !is_final(&error) {
            return Err(error.into());
        }
        metrics::counter!("understudy_apply_errors_total", "reason" => "folder").increment(1);
        tracing::warn!(mailbox.id = %self.target.mailbox, folder.id = %folder.folder,
            "The standby takes no folder of this name; its messages are set aside");
        self.effects.folders.insert(folder.folder, folder.clone());
        self.folders.insert(folder.folder, folder);
        Ok(())
    }

    /// Tries folders again that the standby did not take.
    pub(super) async fn retry_folders(&mut self) -> anyhow::Result<()> {
        let aside = |folder: &&MirrorFolder| folder.selectable && folder.standby_uid_validity == UidValidity(0);
        let names: Vec<FolderName> =
            self.folders.values().filter(aside).map(|folder| FolderName::new(folder.standby_name.as_str())).collect();
        for name in names {
            unless_refused(self.standby.session().create(&name, &[]).await)?;
        }
        Ok(())
    }

    /// After a refused rename of a folder that is there: makes room where only an empty folder stands, which for the
    /// primary is a level at most, or a level that holds nothing any more. Answers whether the rename has been done now.
    pub(super) async fn rename_once_more(
        &mut self,
        from: &FolderName,
        to: &FolderName,
        refused: Error,
    ) -> anyhow::Result<bool> {
        let mut refused = refused;
        let is_ours = |name: &FolderName| {
            self.folders.values().any(|folder| folder.selectable && folder.standby_name.as_bytes() == name.as_bytes())
        };
        let may_go = !is_ours(to)
            && match self.standby.session().status(to).await {
                Ok(status) => status.is_none_or(|status| status.messages == 0),
                // A level has no STATUS.
                Err(Error::Refused { .. }) => true,
                Err(error) => return Err(error.into()),
            };
        if may_go {
            unless_refused(self.standby.session().delete(to).await)?;
            match self.standby.session().rename(from, to).await {
                Ok(()) => return Ok(true),
                Err(error) => refused = error,
            }
        }
        if !is_final(&refused) {
            return Err(refused.into());
        }
        tracing::warn!(mailbox.id = %self.target.mailbox, "The standby does not take a folder's new name; it keeps the old one");
        Ok(false)
    }

    /// Some servers keep a folder that others lie below (Cyrus): then it stays as their level, without messages.
    pub(super) async fn empty(&mut self, folder: FolderId, refused: Error) -> anyhow::Result<()> {
        let path = self.folder(folder)?.path.clone();
        let is_level =
            refused.code() == Some("HASCHILDREN") || self.folders.values().any(|other| other.path.is_below(&path));
        if !is_level || !matches!(refused, Error::Refused { .. }) {
            return Err(refused.into());
        }
        let there = self.on_standby(folder, &UidSet::range(Uid(1), Uid(u32::MAX))).await?;
        if !there.is_empty() {
            self.open(folder).await?;
            self.run(&[Command::Expunge { uids: there }]).await?;
        }
        Ok(())
    }

    /// Some servers make folders of the levels that a name needs, and keep them when the name goes (Cyrus). Those that no
    /// folder of the mirror needs any more go too, while they are empty: `vacated`, and the levels above it.
    pub(super) async fn drop_levels(&mut self, vacated: &FolderPath) -> anyhow::Result<()> {
        if self.parked || self.parking.holds() {
            // One of them may be a folder that waits for a person, or that a person decided to keep.
            return Ok(());
        }
        for path in std::iter::successors(Some(vacated.clone()), FolderPath::parent) {
            let needed = |folder: &MirrorFolder| folder.path == path || folder.path.is_below(&path);
            if path.is_inbox() || self.folders.values().any(needed) {
                break;
            }
            let name = self.standby.session().name_for(&path);
            match self.standby.session().status(&name).await {
                Ok(Some(status)) if status.messages > 0 => break,
                Ok(None) => {}
                // Refused: a level that holds no messages, and maybe other folders, with which it stays.
                Ok(Some(_)) | Err(Error::Refused { .. }) => unless_refused(self.standby.session().delete(&name).await)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sets flags of messages in the open folder as far as the standby takes them: system flags, then each keyword by itself.
    /// A server may have room for no more kinds of keywords in a folder (Cyrus: 100).
    pub(super) async fn store_what_is_taken(&mut self, uids: &UidSet, flags: &[String]) -> anyhow::Result<()> {
        let (system, keywords): (Vec<String>, Vec<String>) =
            flags.iter().cloned().partition(|flag| is_system_flag(flag));
        let mut commands = vec![Command::StoreFlags { uids: uids.clone(), flags: system }];
        commands
            .extend(keywords.into_iter().map(|keyword| Command::AddFlags { uids: uids.clone(), flags: vec![keyword] }));
        let verdicts = self.standby.session().run_all(&commands).await?;
        if let Some(Tagged::No { code, text, .. }) = verdicts.into_iter().next() {
            return Err(Error::Refused { command: "UID STORE", code, text, done: 0 }.into());
        }
        Ok(())
    }
}

/// A refusal that waiting does not change (RFC 5530 §3).
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Refused { .. })
        && !matches!(error.code(), Some("INUSE" | "SERVERBUG" | "UNAVAILABLE" | "CORRUPTION" | "NOPERM"))
}
