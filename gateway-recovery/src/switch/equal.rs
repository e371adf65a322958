//! Are both sides of a mailbox equal? Listed from the servers themselves, right before a user comes home.
//!
//! Keeps true: a folder is believed equal only while its counters on both sides stay as they were when it was found so.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use understudy_database::mirror::{self, MirrorMessage, SetAside};
use understudy_imap_session::{FolderStatus, Row};
use understudy_protocol::{FolderId, FolderPath, FolderPosition, MailboxId, Uid, UidSet};

use super::{
    carry::Depot,
    pass::Memory,
    sides::{self, Sides},
    tree::Place,
};
use crate::standby::Standby;

/// Rows of the UID map read at once.
const SLICE: i64 = 10_000;

/// What was found, and where the primary's server journal stood before that.
#[derive(Default)]
pub(crate) struct Found {
    /// Messages listed.
    pub(crate) messages: u64,
    /// For people; empty when all is equal.
    pub(crate) differences: Vec<String>,
    pub(crate) positions: BTreeMap<FolderId, FolderPosition>,
    /// The next UID of each folder on the standby.
    pub(crate) standby_next: BTreeMap<FolderId, Uid>,
    /// Levels on the primary that only hold other folders, and how the standby spells them.
    pub(crate) levels: BTreeMap<FolderPath, String>,
}

/// Compares; folders in `equal` with the same counters are passed over, those found equal are added to it.
pub(crate) async fn equal(
    depot: &Depot,
    mailbox: MailboxId,
    sides: &mut Sides,
    equal: &mut Memory,
) -> anyhow::Result<Found> {
    let listed = sides::list(sides, mirror::folders(&depot.pool, mailbox).await?).await?;
    let mut found = Found::default();
    let levels = listed.primary.folders.iter().filter(|folder| !folder.selectable);
    for path in levels.map(|folder| folder.path.clone()) {
        let name = sides.standby.session().name_for(&path);
        found.levels.insert(path, String::from_utf8_lossy(name.as_bytes()).into_owned());
    }
    let set = |paths: &[FolderPath]| -> BTreeSet<FolderPath> { paths.iter().cloned().collect() };
    let (primary, standby) = (set(&listed.primary.subscriptions), set(&listed.standby.subscriptions));
    // To a name without a folder some servers take no subscription, however it is asked.
    let is_folder = |path: &FolderPath| listed.places.iter().any(|place| place.wanted == *path);
    let one_sided = primary.symmetric_difference(&standby).filter(|path| is_folder(path));
    found.differences.extend(one_sided.map(|path| format!("{path} is subscribed on one side only")));
    for place in &listed.places {
        let status = listed.status(place);
        if let (Some(p), Some(s)) = status {
            found.positions.insert(place.folder, position(&p));
            found.standby_next.insert(place.folder, s.uid_next);
        }
        if equal.get(&place.folder) == Some(&status) {
            continue;
        }
        equal.remove(&place.folder);
        let before = found.differences.len();
        compare_folder(depot, mailbox, sides, place, &mut found).await?;
        if found.differences.len() == before {
            equal.insert(place.folder, status);
        }
    }
    Ok(found)
}

fn position(status: &FolderStatus) -> FolderPosition {
    FolderPosition {
        uid_validity: status.uid_validity,
        mod_seq: status.mod_seq,
        uid_next: status.uid_next,
        ..FolderPosition::default()
    }
}

async fn compare_folder(
    depot: &Depot,
    mailbox: MailboxId,
    sides: &mut Sides,
    place: &Place,
    found: &mut Found,
) -> anyhow::Result<()> {
    let name = &place.wanted;
    let (Some(on_primary), Some(on_standby)) = (&place.primary, &place.standby) else {
        found.differences.push(format!("folder {name} is on one side only"));
        return Ok(());
    };
    if on_primary != on_standby {
        found.differences.push(format!("folder {on_primary} is called {on_standby} on the standby"));
        return Ok(());
    }
    let Sides { primary, standby } = sides;
    let (primary, standby) = tokio::try_join!(rows(primary, on_primary), rows(standby, on_standby))?;
    found.messages += primary.len() as u64;
    let mut map = map(depot, mailbox, place.folder).await?;
    let mut there: BTreeMap<Uid, Row> = standby.into_iter().map(|row| (row.uid, row)).collect();
    for row in primary {
        let uid = row.uid;
        let Some(mapped) = map.remove(&uid) else {
            found.differences.push(format!("UID {uid} of {name} is on the primary only"));
            continue;
        };
        let Some(standby_uid) = mapped.standby_uid else { continue };
        match there.remove(&standby_uid) {
            Some(copy) => found.differences.extend(
                difference(&row, &copy, &mapped)
                    .map(|what| format!("UID {uid} of {name} (UID {standby_uid} on the standby) differs in {what}")),
            ),
            None => found.differences.push(format!("UID {uid} of {name} is not on the standby any more")),
        }
    }
    let gone = map.into_values().filter(|row| row.standby_uid.is_some());
    found.differences.extend(gone.map(|row| format!("UID {} of {name} is not on the primary any more", row.uid)));
    found.differences.extend(there.into_keys().map(|uid| format!("UID {uid} of {name} is on the standby only")));
    Ok(())
}

/// What two copies of a message differ in. Content was compared by digest when it was brought over.
fn difference(row: &Row, copy: &Row, mapped: &MirrorMessage) -> Option<&'static str> {
    let folded =
        |flags: &[String]| -> BTreeSet<String> { flags.iter().map(|flag| flag.to_ascii_lowercase()).collect() };
    let altered = matches!(mapped.set_aside, Some(SetAside::Altered { .. }));
    if folded(&row.flags) != folded(&copy.flags) {
        Some("flags")
    } else if !same_instant(&row.internal_date, &copy.internal_date) {
        Some("date")
    } else if row.size != copy.size && !altered {
        Some("size")
    } else {
        None
    }
}

/// Do two INTERNALDATEs name the same second, in whatever zone?
fn same_instant(one: &str, other: &str) -> bool {
    let parse = |text: &str| DateTime::parse_from_str(text.trim(), "%d-%b-%Y %H:%M:%S %z").ok();
    one == other || parse(one).zip(parse(other)).is_some_and(|(one, other)| one == other)
}

async fn rows(side: &mut Standby, path: &FolderPath) -> anyhow::Result<Vec<Row>> {
    let name = side.session().name_for(path);
    match side.examine(&name).await? {
        Some(selected) if selected.exists > 0 => Ok(side.session().rows(&UidSet::range(Uid(1), Uid(u32::MAX))).await?),
        _ => Ok(Vec::new()),
    }
}

async fn map(depot: &Depot, mailbox: MailboxId, folder: FolderId) -> anyhow::Result<BTreeMap<Uid, MirrorMessage>> {
    let mut map = BTreeMap::new();
    let mut after = Uid(0);
    loop {
        let slice = mirror::messages(&depot.pool, mailbox, folder, after, SLICE).await?;
        let Some(last) = slice.last() else { return Ok(map) };
        after = last.uid;
        map.extend(slice.into_iter().map(|row| (row.uid, row)));
    }
}
