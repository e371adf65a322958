//! Sessions on both sides of a mailbox, and what they show: folders, messages, and whether that can be believed.
//!
//! Keeps true: a side that does not show its INBOX shows nothing at all: never an empty mailbox.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::timeout;
use understudy_database::{
    mirror::{MirrorFolder, MirrorMessage},
    switch::Subject,
};
use understudy_imap_session::{Error, FolderStatus, Sweep};
use understudy_protocol::{
    FolderId, FolderPath, Uid, UidSet,
    messages::Trouble,
    server::{LoginConfig, Server},
};
use understudy_replication::trouble::explain;

use super::{
    carry::{Depot, Fetched},
    merge,
    tree::{self, Place, There},
};
use crate::standby::Standby;

/// A server that does not let us in within this is not there.
const OPENING: Duration = Duration::from_secs(15);
/// A server that says nothing for so long in the middle of a switch is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Both sides of one mailbox.
pub(crate) struct Sides {
    pub(crate) primary: Standby,
    pub(crate) standby: Standby,
}

impl Sides {
    /// Opens both; the primary with the log-in that only reads.
    pub(crate) async fn to_read(subject: &Subject) -> Result<Self, Trouble> {
        Self::open(subject, &subject.primary.login).await
    }

    /// Opens both; the primary with the log-in that may write, if it has one of its own.
    pub(crate) async fn to_write(subject: &Subject) -> Result<Self, Trouble> {
        let login = subject.primary.return_login.as_ref().unwrap_or(&subject.primary.login);
        let mut sides = Self::open(subject, login).await?;
        sides.probe(subject).await?;
        Ok(sides)
    }

    async fn open(subject: &Subject, login: &LoginConfig) -> Result<Self, Trouble> {
        let (primary, standby) = tokio::try_join!(
            open(&subject.primary, login, &subject.address),
            open(&subject.standby, &subject.standby.login, &subject.standby_address),
        )?;
        Ok(Self { primary, standby })
    }

    /// Can the primary be written to?
    async fn probe(&mut self, subject: &Subject) -> Result<(), Trouble> {
        let name = &subject.primary.name;
        let tell = |error: Error| explain(name, &error);
        if !self.primary.session().capabilities().has("UIDPLUS") {
            return Err(tell(Error::Unsupported("UIDPLUS")));
        }
        let inbox = self.primary.session().name_for(&FolderPath::inbox());
        let selected = self.primary.session().select(&inbox).await.map_err(tell)?;
        let writable = selected.is_some_and(|selected| {
            let may_delete = |flags: &Vec<String>| flags.iter().any(|flag| flag.eq_ignore_ascii_case("\\Deleted"));
            !selected.read_only && selected.permanent_flags.as_ref().is_none_or(may_delete)
        });
        self.primary.close().await.map_err(tell)?;
        if writable {
            return Ok(());
        }
        Err(Trouble {
            kind: "primary_read_only".to_owned(),
            reason: format!("{name} lets this log-in read the mailbox and not write to it"),
            remedy: format!(
                "Give the server a log-in for the way home: `understudy server change {name} --return-user USER \
                 --return-password-file FILE`, or `return_login` in the configuration."
            ),
            fault: true,
        })
    }

    /// Says goodbye to both.
    pub(crate) async fn log_out(self) {
        tokio::join!(self.primary.log_out(), self.standby.log_out());
    }
}

async fn open(server: &Server, login: &LoginConfig, address: &str) -> Result<Standby, Trouble> {
    let opened = timeout(OPENING, Standby::at(server, login, address)).await.unwrap_or(Err(Error::Timeout));
    let mut opened = opened.map_err(|error| explain(&server.name, &error))?;
    opened.session().set_silence_limit(SILENCE);
    Ok(opened)
}

/// A side that shows no INBOX.
#[derive(Debug, thiserror::Error)]
#[error("the {0} shows no INBOX that can be read")]
pub(crate) struct NoInbox(&'static str);

/// What both sides list, and which folder is which.
pub(crate) struct Listed {
    pub(crate) primary: Sweep,
    pub(crate) standby: Sweep,
    pub(crate) common: BTreeMap<FolderId, MirrorFolder>,
    pub(crate) places: Vec<Place>,
    primary_status: HashMap<FolderPath, FolderStatus>,
    standby_status: HashMap<FolderPath, FolderStatus>,
    /// What a side does not show was removed there.
    pub(crate) primary_tells: bool,
    pub(crate) standby_tells: bool,
}

/// Lists the folders of both sides.
pub(crate) async fn list(sides: &mut Sides, common: Vec<MirrorFolder>) -> anyhow::Result<Listed> {
    let Sides { primary, standby } = sides;
    let (primary, standby) = tokio::try_join!(sweep(primary), sweep(standby))?;
    let status = |sweep: &Sweep| -> HashMap<FolderPath, FolderStatus> {
        let selectable = sweep.folders.iter().filter(|folder| folder.selectable);
        selectable.filter_map(|folder| Some((folder.path.clone(), folder.status?))).collect()
    };
    let (primary_status, standby_status) = (status(&primary), status(&standby));
    anyhow::ensure!(primary_status.contains_key(&FolderPath::inbox()), NoInbox("primary"));
    anyhow::ensure!(standby_status.contains_key(&FolderPath::inbox()), NoInbox("standby"));
    // A folder whose STATUS failed is neither there nor gone: nothing may be concluded from the rest.
    for (sweep, side) in [(&primary, "primary"), (&standby, "standby")] {
        let unknown = sweep.folders.iter().find(|folder| folder.selectable && folder.status.is_none());
        if let Some(folder) = unknown {
            anyhow::bail!("the {side} does not tell the state of folder {}", folder.path);
        }
    }
    let common: BTreeMap<FolderId, MirrorFolder> = common.into_iter().map(|folder| (folder.folder, folder)).collect();
    let selectable: Vec<tree::Common> = common
        .values()
        .filter(|folder| folder.selectable)
        .map(|folder| tree::Common {
            folder: folder.folder,
            path: folder.path.clone(),
            primary: folder.position.uid_validity,
            standby: folder.standby_uid_validity,
        })
        .collect();
    let next = FolderId(common.keys().next_back().map_or(1, |last| last.0 + 1));
    let mut places = tree::places(&selectable, &there(&primary), &there(&standby), next);
    // A UIDNEXT that went back: UIDs given out before mean nothing any more.
    for place in &mut places {
        let Some(folder) = common.get(&place.folder) else { continue };
        let went_back = |path: &Option<FolderPath>, status: &HashMap<FolderPath, FolderStatus>, known: Uid| {
            let now = path.as_ref().and_then(|path| status.get(path));
            now.is_some_and(|now| now.uid_next != Uid(0) && now.uid_next < known)
        };
        place.primary_reset |= went_back(&place.primary, &primary_status, folder.position.uid_next);
        place.standby_reset |= went_back(&place.standby, &standby_status, folder.standby_uid_next);
    }
    let inbox = places.iter().find(|place| place.wanted.is_inbox() && !place.fresh);
    let mod_seq = primary_status.get(&FolderPath::inbox()).map(|status| status.mod_seq);
    let rolled_back = inbox
        .and_then(|inbox| common.get(&inbox.folder))
        .is_none_or(|folder| mod_seq.is_some_and(|now| now < folder.position.mod_seq));
    let (primary_tells, standby_tells) = (
        inbox.is_some_and(|inbox| !inbox.primary_reset) && !rolled_back,
        inbox.is_some_and(|inbox| !inbox.standby_reset),
    );
    Ok(Listed { primary, standby, common, places, primary_status, standby_status, primary_tells, standby_tells })
}

impl Listed {
    /// The counters of a place on both sides: while they stay, nothing happens there.
    pub(crate) fn status(&self, place: &Place) -> (Option<FolderStatus>, Option<FolderStatus>) {
        let of = |path: &Option<FolderPath>, status: &HashMap<FolderPath, FolderStatus>| {
            path.as_ref().and_then(|path| status.get(path)).copied()
        };
        (of(&place.primary, &self.primary_status), of(&place.standby, &self.standby_status))
    }
}

async fn sweep(side: &mut Standby) -> Result<Sweep, Error> {
    // STATUS of an open folder may be stale.
    side.close().await?;
    side.session().sweep().await
}

fn there(sweep: &Sweep) -> Vec<There> {
    let selectable = sweep.folders.iter().filter(|folder| folder.selectable);
    selectable
        .filter_map(|folder| {
            Some(There {
                path: folder.path.clone(),
                uid_validity: folder.status?.uid_validity,
                special_use: folder.special_use.clone(),
            })
        })
        .collect()
}

/// One side of a folder, read.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) side: merge::Side,
    pub(crate) fetched: HashMap<Uid, Fetched>,
}

/// Reads one side of a folder; what `known` does not hold is fetched whole. `None` when it changed since it was listed.
pub(crate) async fn read(
    depot: &Depot,
    on: &mut Standby,
    path: Option<&FolderPath>,
    status: Option<FolderStatus>,
    known: &UidSet,
) -> anyhow::Result<Option<Read>> {
    let (Some(path), Some(status)) = (path, status) else { return Ok(Some(Read::default())) };
    let name = on.session().name_for(path);
    let Some(selected) = on.examine(&name).await? else { return Ok(None) };
    if selected.uid_validity != status.uid_validity {
        return Ok(None);
    }
    let mut read = Read::default();
    if selected.exists > 0 {
        let everything = UidSet::range(Uid(1), Uid(u32::MAX));
        read.side.messages = on.session().flags(&everything).await?.into_iter().collect();
        if (read.side.messages.len() as u64) < u64::from(selected.exists) {
            // Some went while they were listed.
            return Ok(None);
        }
    }
    let fresh: UidSet = read.side.messages.keys().copied().filter(|&uid| !known.contains(uid)).collect();
    for fetched in depot.fetch(on, &fresh).await? {
        read.side.fresh.push(merge::Fresh {
            uid: fetched.row.uid,
            flags: fetched.row.flags.clone(),
            digest: fetched.content.digest,
            loose: fetched.loose,
            delivery: fetched.delivery,
        });
        read.fetched.insert(fetched.row.uid, fetched);
    }
    // What vanished before it was fetched is none of our business.
    read.side.messages.retain(|uid, _| known.contains(*uid) || read.fetched.contains_key(uid));
    Ok(Some(read))
}

/// Rows of the UID map as the merge wants them.
pub(crate) fn common(rows: &[MirrorMessage]) -> Vec<merge::Common> {
    rows.iter()
        .map(|row| merge::Common {
            row: row.uid,
            standby: row.standby_uid,
            digest: row.content.digest,
            flags: row.flags.clone(),
        })
        .collect()
}
