//! Verifies one mailbox: what both sides hold, listed from the servers themselves in slices, compared as it streams by.
//!
//! First digests of slices cross the link; only slices that differ are listed message by message.
//! Keeps true: verification reads only; a listing that failed is an error, never a difference; memory grows with the number of
//! folders and of ranges of UIDs, not of messages.

mod beyond;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use sqlx::PgPool;
use understudy_database::{
    brake::{self, ParkedFolder},
    continuity::Continuity,
    journal::{self, Target},
    link,
    mirror::{self, MirrorFolder, MirrorMessage},
};
use understudy_imap_session::{Address, Error, FolderName, Login, Selected, Session};
use understudy_protocol::{
    FolderPath, Uid, UidSet, UidValidity,
    messages::{Asked, FolderRange, InventoryFrame, InventoryMessage, Trouble, Unreadable},
};
use understudy_replication::{inventory, trouble::explain};

use crate::{
    applier::is_another_folder,
    compare::{At, Comparison, Difference, Repair, compare_slice},
    directives::DirectiveBoard,
    trace::name_transactions,
};

/// Compares both sides of a mailbox once. The caller has waited until what was captured is applied.
pub(crate) async fn verify(
    pool: &PgPool,
    board: &DirectiveBoard,
    target: &Target,
    bodies: bool,
) -> Result<Comparison, Trouble> {
    let mut verifier = Verifier::open(pool, target, bodies).await?;
    verifier.pass(board, Vec::new()).await?;
    let suspects = std::mem::take(&mut verifier.suspects);
    if !suspects.is_empty() {
        verifier.pass(board, suspects).await?;
    }
    let Verifier { session, mut found, .. } = verifier;
    session.logout().await;
    name_transactions(pool, target, &mut found.differences).await.map_err(|error| internal(&error))?;
    name_unreadable(pool, target, &mut found.differences).await.map_err(|error| internal(&error))?;
    Ok(found)
}

/// What lacks because the primary cannot give it is no riddle.
async fn name_unreadable(
    pool: &PgPool,
    target: &Target,
    differences: &mut [Difference],
) -> understudy_database::Result<()> {
    let unreadable = link::unreadable_of(pool, target.mailbox).await?;
    for difference in differences.iter_mut().filter(|difference| difference.what == "missing_on_standby") {
        let here = |m: &&Unreadable| m.path.to_string() == difference.folder && Some(m.uid.0) == difference.uid;
        if let Some(message) = unreadable.iter().find(here) {
            difference.what = "set_aside";
            difference.detail.clone_from(&message.reason);
        }
    }
    Ok(())
}

/// A failure that is nobody's fault outside.
pub(crate) fn internal(error: &dyn std::error::Error) -> Trouble {
    Trouble {
        kind: "internal".to_owned(),
        reason: format!("the recovery gateway could not: {error}"),
        remedy: "Try again; its log says more.".to_owned(),
        fault: false,
    }
}

/// Is there nothing left between what was received and what is applied?
pub(crate) async fn is_settled(pool: &PgPool, target: &Target) -> understudy_database::Result<bool> {
    let numbers = journal::numbers(pool, target.mailbox).await?;
    Ok(numbers.is_some_and(|numbers| numbers.received == numbers.applied))
}

/// A folder that is just being rebuilt is looked at again so often, …
const REBUILDING_LOOKS: usize = 50;
/// … after this.
const REBUILDING_PAUSE: Duration = Duration::from_millis(100);

/// What keeps a folder from a standby that refused it.
const NAME_NOT_TAKEN: &str = "the standby takes no folder of this name: rename the folder on the primary, or change what the \
                              standby allows";

/// What is said of a folder that was deleted there.
const GONE: &str = "the standby does not have it";

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Standby(#[from] Error),
    #[error(transparent)]
    Database(#[from] understudy_database::Error),
}

/// The standby's side and what was found so far.
struct Verifier<'a> {
    pool: &'a PgPool,
    target: &'a Target,
    bodies: bool,
    session: Session,
    /// By path: its name, where it can be opened.
    listed: BTreeMap<FolderPath, Option<FolderName>>,
    subscriptions: BTreeSet<FolderPath>,
    mirror: BTreeMap<FolderPath, MirrorFolder>,
    parked: HashMap<String, ParkedFolder>,
    spared: BTreeSet<FolderPath>,
    found: Comparison,
    suspects: Vec<FolderRange>,
    /// Folders that the primary showed.
    shown: BTreeSet<FolderPath>,
    current: Option<Current>,
}

/// The folder being compared.
struct Current {
    path: FolderPath,
    mirror: Option<MirrorFolder>,
    /// What the standby has there, and what of it the UID map accounts for; `None` where it has no such folder.
    there: Option<(UidSet, UidSet)>,
    /// Through which primary UID it has been compared.
    through: Uid,
}

/// A folder as the journal names it.
fn at(path: &FolderPath, mirror: Option<&MirrorFolder>) -> At {
    match mirror {
        Some(mirror) => At::Folder(mirror.folder, path.clone()),
        None => At::Name(path.clone()),
    }
}

/// Have we noted other numbers of it meanwhile?
fn is_renumbered(known: &MirrorFolder, now: &MirrorFolder) -> bool {
    (known.standby_uid_validity, known.standby_uid_next) != (now.standby_uid_validity, now.standby_uid_next)
}

/// Is the standby's folder not the one that was filled?
fn is_another(opened: &Selected, mirror: &MirrorFolder) -> bool {
    is_another_folder(mirror, opened.uid_validity, opened.uid_next)
}

impl<'a> Verifier<'a> {
    async fn open(pool: &'a PgPool, target: &'a Target, bodies: bool) -> Result<Self, Trouble> {
        let opened = async {
            let address = Address::parse(&target.standby.imap, target.standby.ca_file.clone())?;
            let login = Login::for_user(&target.standby.login, &target.address).await?;
            let mut session = Session::open(&address, &login).await?;
            session.count_as(&target.standby.name);
            let sweep = session.sweep().await?;
            Ok((session, sweep))
        };
        let (session, sweep) = opened.await.map_err(|error: Error| explain(&target.standby.name, &error))?;
        let read = async {
            let mirror = mirror::folders(pool, target.mailbox).await?;
            let parked = brake::folders(pool, target.mailbox).await?;
            let spared = brake::spared_subscriptions(pool, target.mailbox).await?;
            understudy_database::Result::Ok((mirror, parked, spared))
        };
        let (mirror, parked, spared) = read.await.map_err(|error: understudy_database::Error| internal(&error))?;
        Ok(Self {
            pool,
            target,
            bodies,
            session,
            listed: sweep
                .folders
                .into_iter()
                .map(|folder| (folder.path, folder.selectable.then_some(folder.name)))
                .collect(),
            subscriptions: sweep.subscriptions.into_iter().collect(),
            mirror: mirror.into_iter().map(|folder| (folder.path.clone(), folder)).collect(),
            parked: parked.into_iter().map(|folder| (folder.standby_name.clone(), folder)).collect(),
            spared: spared.into_iter().collect(),
            found: Comparison::default(),
            suspects: Vec::new(),
            shown: BTreeSet::new(),
            current: None,
        })
    }

    /// Goes once through what the primary shows: all of it in short, or these ranges message by message.
    async fn pass(&mut self, board: &DirectiveBoard, only: Vec<FolderRange>) -> Result<(), Trouble> {
        let summary = only.is_empty();
        let asked = Asked::Inventory { mailbox: self.target.mailbox, bodies: self.bodies, summary, only: only.clone() };
        let mut question = board.ask(asked);
        let mut ended = false;
        while let Some(frame) = question.frames.recv().await {
            ended |= matches!(frame, InventoryFrame::End);
            let taken = if summary { self.take(frame).await } else { self.take_again(frame, &only).await };
            taken.map_err(|error| self.explain(&error))?;
        }
        question.answer().await?;
        if !ended {
            return Err(Trouble {
                kind: "link".to_owned(),
                reason: "the primary's list did not arrive whole".to_owned(),
                remedy: "Try again once the link is up.".to_owned(),
                fault: false,
            });
        }
        if summary {
            self.finish_folder().await.map_err(|error| self.explain(&error))?;
            self.only_here().await.map_err(|error| self.explain(&error))?;
        }
        Ok(())
    }

    fn explain(&self, error: &Broken) -> Trouble {
        match error {
            Broken::Standby(error) => explain(&self.target.standby.name, error),
            Broken::Database(error) => internal(error),
        }
    }

    async fn take(&mut self, frame: InventoryFrame) -> Result<(), Broken> {
        match frame {
            InventoryFrame::Start { subscriptions } => {
                let theirs: BTreeSet<FolderPath> = subscriptions.into_iter().collect();
                self.compare_subscriptions(&theirs);
            }
            InventoryFrame::Folder { path, selectable, .. } => {
                self.finish_folder().await?;
                if selectable {
                    self.begin_folder(path).await?;
                }
            }
            InventoryFrame::Messages(messages) => {
                self.found.messages += messages.len() as u64;
                let (Some(current), Some(last)) = (&self.current, messages.last()) else { return Ok(()) };
                let (path, after, through) = (current.path.clone(), current.through, last.uid);
                let map = self.rows(after, through).await?;
                self.compare(&path, &messages, map).await?;
            }
            InventoryFrame::Slice { through, messages, digest } => {
                self.found.messages += u64::from(messages);
                let Some(current) = &self.current else { return Ok(()) };
                let (path, after) = (current.path.clone(), current.through);
                if current.there.is_none() {
                    return Ok(());
                }
                let map = self.rows(after, through).await?;
                let there = self.copies(&map).await?;
                let mapped: Vec<(Uid, &InventoryMessage)> = map
                    .values()
                    .filter(|row| row.set_aside.is_none())
                    .filter_map(|row| Some((row.uid, there.get(&row.standby_uid?)?)))
                    .collect();
                let whole = mapped.len() == map.len() && map.len() as u64 == u64::from(messages);
                if !whole || inventory::summary(mapped) != digest {
                    let low = Uid(after.0.saturating_add(1));
                    match self.suspects.last_mut() {
                        Some(last) if last.path == path && last.high == after => last.high = through,
                        _ => self.suspects.push(FolderRange { path, low, high: through }),
                    }
                }
            }
            InventoryFrame::End => {}
        }
        Ok(())
    }

    /// Slices that differ, message by message.
    async fn take_again(&mut self, frame: InventoryFrame, only: &[FolderRange]) -> Result<(), Broken> {
        match frame {
            InventoryFrame::Folder { path, .. } => {
                let name = self.listed.get(&path).cloned().flatten();
                let opened = match &name {
                    Some(name) => self.session.examine(name).await?,
                    None => None,
                };
                let opened = opened
                    .is_some_and(|opened| !self.mirror.get(&path).is_some_and(|mirror| is_another(&opened, mirror)));
                let uids = if opened { self.session.uids(Uid(1)).await? } else { UidSet::default() };
                self.current = opened.then(|| Current {
                    mirror: self.mirror.get(&path).cloned(),
                    path,
                    there: Some((uids, UidSet::default())),
                    through: Uid(0),
                });
            }
            InventoryFrame::Messages(messages) => {
                let (Some(current), Some(last)) = (&self.current, messages.last()) else { return Ok(()) };
                let (path, after, through) = (current.path.clone(), current.through, last.uid);
                let mut map = BTreeMap::new();
                for range in only.iter().filter(|range| range.path == path) {
                    let low = range.low.max(Uid(after.0.saturating_add(1)));
                    let high = range.high.min(through);
                    if low <= high {
                        map.extend(self.rows(Uid(low.0 - 1), high).await?);
                    }
                }
                if let Some(current) = &mut self.current {
                    current.through = through;
                }
                self.compare(&path, &messages, map).await?;
            }
            InventoryFrame::Start { .. } | InventoryFrame::Slice { .. } | InventoryFrame::End => {}
        }
        Ok(())
    }

    async fn compare(
        &mut self,
        path: &FolderPath,
        messages: &[InventoryMessage],
        map: BTreeMap<Uid, MirrorMessage>,
    ) -> Result<(), Broken> {
        let there = self.copies(&map).await?;
        let folder = self.mirror.get(path).map(|mirror| mirror.folder);
        compare_slice(&mut self.found, path, folder, messages, &map, &there);
        Ok(())
    }

    /// The UID map's rows of the current folder after one primary UID through another; and notes how far that is.
    async fn rows(&mut self, after: Uid, through: Uid) -> Result<BTreeMap<Uid, MirrorMessage>, Broken> {
        let Some(current) = &mut self.current else { return Ok(BTreeMap::new()) };
        current.through = through;
        let Some(folder) = current.mirror.as_ref().map(|mirror| mirror.folder) else { return Ok(BTreeMap::new()) };
        let rows = mirror::between(self.pool, self.target.mailbox, folder, after, through).await?;
        Ok(rows.into_iter().map(|row| (row.uid, row)).collect())
    }

    /// The standby's messages that these rows name.
    async fn copies(&mut self, map: &BTreeMap<Uid, MirrorMessage>) -> Result<BTreeMap<Uid, InventoryMessage>, Broken> {
        let Some(Current { there: Some((there, seen)), .. }) = &mut self.current else { return Ok(BTreeMap::new()) };
        let mut named: Vec<Uid> =
            map.values().filter_map(|row| row.standby_uid).filter(|&uid| there.contains(uid)).collect();
        named.sort_unstable();
        let uids: UidSet = named.into_iter().collect();
        if uids.is_empty() {
            return Ok(BTreeMap::new());
        }
        uids.ranges().for_each(|(low, high)| seen.insert_range(low, high));
        let messages = inventory::messages(&mut self.session, &uids, self.bodies).await?;
        Ok(messages.into_iter().map(|message| (message.uid, message)).collect())
    }

    fn compare_subscriptions(&mut self, theirs: &BTreeSet<FolderPath>) {
        for path in theirs.symmetric_difference(&self.subscriptions) {
            let on_primary = theirs.contains(path);
            if !on_primary && self.spared.contains(path) {
                self.found.keep(path, None);
                continue;
            }
            let (on, off) = if on_primary { ("primary", "standby") } else { ("standby", "primary") };
            let detail = format!("subscribed on the {on}, not on the {off}");
            self.found.add(path, Some(At::Subscription(path.clone())), None, "subscription", detail);
            self.found.repair(Repair::Subscribe { path: path.clone(), subscribed: on_primary });
        }
    }

    async fn begin_folder(&mut self, path: FolderPath) -> Result<(), Broken> {
        self.found.folders += 1;
        self.shown.insert(path.clone());
        let mut mirror = self.mirror.get(&path).cloned();
        let name = self.listed.get(&path).cloned().flatten();
        let mut opened = None;
        if let Some(name) = &name {
            opened = self.session.examine(name).await?;
            // It may just have been rebuilt under the primary's UIDs.
            for _ in 0..REBUILDING_LOOKS {
                let (Some(there), Some(known)) = (&opened, &mirror) else { break };
                if !is_another(there, known) {
                    break;
                }
                let folders = mirror::folders(self.pool, self.target.mailbox).await?;
                let Some(now) = folders.into_iter().find(|folder| folder.folder == known.folder) else { break };
                if now.continuity == Continuity::Swapping {
                    tokio::time::sleep(REBUILDING_PAUSE).await;
                } else if !is_renumbered(known, &now) {
                    break;
                }
                opened = self.session.examine(name).await?;
                mirror = Some(now);
            }
        }
        let there = match (&opened, &mirror) {
            (None, _) => {
                self.missing(&path, mirror.as_ref());
                None
            }
            (Some(opened), Some(mirror)) if is_another(opened, mirror) => {
                self.another(&path, opened, mirror);
                None
            }
            (Some(_), _) => Some((self.session.uids(Uid(1)).await?, UidSet::default())),
        };
        self.current = Some(Current { path, mirror, there, through: Uid(0) });
        Ok(())
    }

    /// The standby has no such folder: it never took it, or somebody deleted it there.
    fn missing(&mut self, path: &FolderPath, mirror: Option<&MirrorFolder>) {
        let detail = match mirror {
            Some(mirror) if mirror.standby_uid_validity == UidValidity(0) => {
                self.found.repair(Repair::CreateFolder { folder: mirror.folder });
                NAME_NOT_TAKEN.to_owned()
            }
            Some(mirror) if self.parked.contains_key(&mirror.standby_name) => {
                format!("{GONE}; what the mass-change brake stopped rested in it: decide on that, and it is made again")
            }
            Some(mirror) => {
                self.found.repair(Repair::ApplyAgain { folder: mirror.folder });
                format!("{GONE}; it is made again and filled from the content store")
            }
            None => GONE.to_owned(),
        };
        self.found.add(path, Some(at(path, mirror)), None, "folder_missing", detail);
    }

    /// The standby's folder is not the one that was filled: nothing in it can be told by its UIDs.
    fn another(&mut self, path: &FolderPath, opened: &Selected, mirror: &MirrorFolder) {
        let (is, was) = (opened.uid_validity, mirror.standby_uid_validity);
        let seen = match is == was {
            true => format!(
                "gives UIDs out from {} on, and had given all below {}: it was restored there as it had been before",
                opened.uid_next, mirror.standby_uid_next
            ),
            false => format!(
                "has UIDVALIDITY {is}, and had {was} when it was filled: it was deleted, rebuilt or restored there"
            ),
        };
        let mut detail =
            format!("the standby's folder {seen}. Its messages are compared once it has been applied again");
        if self.parked.contains_key(&mirror.standby_name) {
            detail.push_str(", which waits for a person: removals that the mass-change brake stopped rest in it");
        } else {
            self.found.repair(Repair::ApplyAgain { folder: mirror.folder });
        }
        self.found.add(path, Some(At::Folder(mirror.folder, path.clone())), None, "uid_validity", detail);
    }
}
