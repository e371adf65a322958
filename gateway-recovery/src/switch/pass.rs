//! One pass over a mailbox: reads both sides, merges them with what they had in common, and gives each what it lacks.
//!
//! In: sessions on both sides; the mirror's tables as what both had in common. Out: IMAP commands, the tables brought up to
//! date, a report. Keeps true: a pass may be broken off anywhere and begun again: what was appended and not recorded is
//! recognised by its content; additions of all folders come before any removal.
//! Not here: deciding (`merge`, `tree`), when to pass (`over`, `back`, `sweep`).

mod names;
mod report;

use std::collections::{BTreeMap, HashMap};

use understudy_database::{
    continuity::Continuity,
    mirror::{self, Effects, MirrorFolder, MirrorMessage, SetAside},
};
use understudy_failpoint as failpoint;
use understudy_imap_session::{Error, FolderName, FolderStatus};
use understudy_protocol::{FolderId, FolderPath, FolderPosition, MailboxId, Uid, UidSet};

use super::{
    carry::{self, Depot, Fetched, addition, stored},
    merge::{Carry, Flags, Merge, NO_ROW, Scope, lacking, merge},
    sides::{self, Listed, Read, Sides},
    tree::Place,
};
use crate::{append::Outcome, standby::Standby};

pub(crate) use self::report::{Refused, Report};

/// Rows of the UID map read at once.
const SLICE: i64 = 10_000;
/// How often folders may be renamed before messages are looked at.
const TREES: usize = 4;
/// Messages brought over before what was reached is written down.
const BATCH: usize = 200;
/// More removals than these at once, and more than half of the mailbox, are not believed of a primary that was away.
const BELIEVED: usize = 50;

/// Folders found equal, with their counters: while these stay, the folder need not be read again.
pub(crate) type Memory = HashMap<FolderId, (Option<FolderStatus>, Option<FolderStatus>)>;

/// Passes over one mailbox.
pub(crate) struct Passes {
    pub(crate) mailbox: MailboxId,
    pub(crate) depot: Depot,
    pub(crate) scope: Scope,
    /// Only say what would be done.
    pub(crate) dry: bool,
    pub(crate) memory: Memory,
}

/// One folder at hand.
struct Work {
    place: Place,
    rows: BTreeMap<Uid, MirrorMessage>,
    primary: Read,
    standby: Read,
    merge: Merge,
}

impl Passes {
    /// One pass.
    pub(crate) async fn pass(&mut self, sides: &mut Sides) -> anyhow::Result<Report> {
        let mut report = Report::default();
        for _ in 0..TREES {
            let common = mirror::folders(&self.depot.pool, self.mailbox).await?;
            let listed = sides::list(sides, common).await?;
            if !self.rename(sides, &listed, &mut report).await? {
                Box::pin(self.messages(sides, &listed, &mut report)).await?;
                self.subscriptions(sides, &listed, &mut report).await?;
                return Ok(report);
            }
        }
        anyhow::bail!("folders are renamed faster than they can be followed")
    }

    async fn rows(&self, folder: FolderId) -> anyhow::Result<BTreeMap<Uid, MirrorMessage>> {
        let mut rows = BTreeMap::new();
        let mut after = Uid(0);
        loop {
            let slice = mirror::messages(&self.depot.pool, self.mailbox, folder, after, SLICE).await?;
            let Some(last) = slice.last() else { return Ok(rows) };
            after = last.uid;
            rows.extend(slice.into_iter().map(|row| (row.uid, row)));
        }
    }

    async fn messages(&mut self, sides: &mut Sides, listed: &Listed, report: &mut Report) -> anyhow::Result<()> {
        let mut works = Vec::new();
        for place in &listed.places {
            if self.is_left_alone(place) || self.memory.get(&place.folder) == Some(&listed.status(place)) {
                continue;
            }
            match Box::pin(self.look(sides, listed, place)).await? {
                Some(work) => works.push(work),
                None => report.moving = true,
            }
        }
        self.doubt(listed, &mut works, report).await?;
        for work in &works {
            report.kept += work.merge.kept;
            if work.merge.is_empty() && !self.is_unfinished(listed, work) {
                self.memory.insert(work.place.folder, listed.status(&work.place));
            } else {
                self.memory.remove(&work.place.folder);
            }
        }
        if self.dry {
            works.iter().for_each(|work| count(listed, work, report));
            return Ok(());
        }
        works.retain(|work| !work.merge.is_empty() || self.is_unfinished(listed, work));
        let mut folders: HashMap<FolderId, MirrorFolder> =
            listed.common.iter().map(|(id, folder)| (*id, folder.clone())).collect();
        for work in &mut works {
            self.add(sides, listed, work, &mut folders, report).await?;
        }
        failpoint::here("merge.read");
        for work in &works {
            self.set_flags(sides, work, report).await?;
        }
        // Innermost first, for folders that go.
        works.sort_by_key(|work| std::cmp::Reverse((work.place.wanted.depth(), work.place.folder)));
        for work in &works {
            self.remove(sides, listed, work, report).await?;
        }
        Ok(())
    }

    /// Folders that only concern the way home.
    fn is_left_alone(&self, place: &Place) -> bool {
        self.scope == Scope::Stragglers
            && (place.primary.is_none() && place.fresh
                || place.standby.is_none() && !place.fresh
                || place.primary_reset
                || place.standby_reset)
    }

    /// Must the folder itself be made, removed, or noted under other numbers or names?
    fn is_unfinished(&self, listed: &Listed, work: &Work) -> bool {
        let place = &work.place;
        let renamed = listed.common.get(&place.folder).is_some_and(|known| known.path != place.wanted)
            && place.primary.as_ref() == Some(&place.wanted)
            && place.standby.as_ref() == Some(&place.wanted);
        place.fresh
            || place.primary_reset
            || place.standby_reset
            || renamed
            || place.standby.is_none()
            || (place.primary.is_none() && (self.scope == Scope::Home || listed.primary_tells))
    }

    async fn look(&self, sides: &mut Sides, listed: &Listed, place: &Place) -> anyhow::Result<Option<Work>> {
        let rows = if place.fresh { BTreeMap::new() } else { self.rows(place.folder).await? };
        let on_primary: UidSet = if place.primary_reset { UidSet::default() } else { rows.keys().copied().collect() };
        let on_standby: UidSet = if place.standby_reset {
            UidSet::default()
        } else {
            rows.values().filter_map(|row| row.standby_uid).collect()
        };
        let status = listed.status(place);
        let (primary, standby) = tokio::try_join!(
            sides::read(&self.depot, &mut sides.primary, place.primary.as_ref(), status.0, &on_primary),
            sides::read(&self.depot, &mut sides.standby, place.standby.as_ref(), status.1, &on_standby),
        )?;
        let (Some(mut primary), Some(mut standby)) = (primary, standby) else { return Ok(None) };
        (primary.side.reset, primary.side.tells) = (place.primary_reset, listed.primary_tells && !place.primary_reset);
        (standby.side.reset, standby.side.tells) = (place.standby_reset, listed.standby_tells);
        let common = sides::common(&rows.values().cloned().collect::<Vec<_>>());
        let merge = merge(self.scope, &common, &primary.side, &standby.side);
        Ok(Some(Work { place: place.clone(), rows, primary, standby, merge }))
    }

    /// A primary that lacks most of what it had was emptied, not tidied up.
    async fn doubt(&self, listed: &Listed, works: &mut [Work], report: &mut Report) -> anyhow::Result<()> {
        let removals: usize = works.iter().map(|work| work.merge.expunge_standby.len()).sum();
        if removals <= BELIEVED {
            return Ok(());
        }
        let mut total = 0;
        for folder in listed.common.keys() {
            total += self.rows(*folder).await?.len();
        }
        if removals * 2 <= total {
            return Ok(());
        }
        report.not_believed = removals as u64;
        for work in works {
            work.primary.side.tells = false;
            let common = sides::common(&work.rows.values().cloned().collect::<Vec<_>>());
            work.merge = merge(self.scope, &common, &work.primary.side, &work.standby.side);
        }
        Ok(())
    }

    /// Makes the folder where it lacks, and brings messages over in both directions.
    async fn add(
        &self,
        sides: &mut Sides,
        listed: &Listed,
        work: &mut Work,
        folders: &mut HashMap<FolderId, MirrorFolder>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let place = &work.place;
        let wanted = place.wanted.clone();
        let on_standby = place.standby.clone().unwrap_or_else(|| wanted.clone());
        let on_primary = place.primary.clone().unwrap_or_else(|| wanted.clone());
        let standby_name = sides.standby.session().name_for(&on_standby);
        let primary_name = sides.primary.session().name_for(&on_primary);
        let mut numbers_changed = place.fresh || place.primary_reset || place.standby_reset;
        let goes = goes(listed, work);
        if place.standby.is_none() && !goes {
            sides.standby.session().create(&standby_name, &place.special_use).await?;
            report.folders_changed += 1;
            numbers_changed = true;
        }
        if place.primary.is_none() && !goes {
            if self.scope == Scope::Stragglers {
                return Ok(());
            }
            sides.primary.session().create(&primary_name, &place.special_use).await?;
            report.folders_changed += 1;
            numbers_changed = true;
        }
        if goes {
            return Ok(());
        }
        let renamed = place.primary.as_ref().unwrap_or(&wanted) == place.standby.as_ref().unwrap_or(&wanted)
            && folders.get(&place.folder).is_some_and(|folder| folder.path != wanted);
        if numbers_changed || renamed {
            let folder = self.number(sides, place, folders.get(&place.folder), &primary_name, &standby_name).await?;
            let mut effects = Effects::default();
            if place.primary_reset || place.standby_reset {
                effects.expunged.push((place.folder, UidSet::range(Uid(1), Uid(u32::MAX))));
            }
            effects.folders.insert(place.folder, folder.clone());
            folders.insert(place.folder, folder);
            self.record(&effects).await?;
        }
        self.pair(work, report).await?;
        self.carry_home(sides, &primary_name, work, report).await?;
        self.carry_over(sides, &standby_name, work, report).await
    }

    /// The folder as it is to be remembered, with the numbers both sides give it now.
    async fn number(
        &self,
        sides: &mut Sides,
        place: &Place,
        known: Option<&MirrorFolder>,
        primary: &FolderName,
        standby: &FolderName,
    ) -> anyhow::Result<MirrorFolder> {
        let gone = Error::Protocol("a folder is gone right after it was made or listed");
        let Some(there) = sides.primary.examine(primary).await? else { anyhow::bail!(gone) };
        let Some(here) = sides.standby.examine(standby).await? else { anyhow::bail!(gone) };
        sides.primary.close().await?;
        sides.standby.close().await?;
        let position = match known {
            Some(known) if known.position.uid_validity == there.uid_validity && !place.primary_reset => known.position,
            // Read again from its beginning, should the numbers not be taken at the end.
            _ => FolderPosition { uid_validity: there.uid_validity, uid_next: Uid(1), ..FolderPosition::default() },
        };
        let standby_uid_next = match known {
            Some(known) if known.standby_uid_validity == here.uid_validity && !place.standby_reset => {
                known.standby_uid_next
            }
            _ => Uid(1),
        };
        Ok(MirrorFolder {
            folder: place.folder,
            path: place.wanted.clone(),
            special_use: place.special_use.clone(),
            selectable: true,
            position,
            standby_name: String::from_utf8_lossy(standby.as_bytes()).into_owned(),
            standby_uid_validity: here.uid_validity,
            standby_uid_next,
            standby_mod_seq: here.mod_seq,
            // Looked at once mirroring goes on, and rebuilt if it is so (`applier::rebuild`).
            continuity: match known.map(|known| &known.continuity) {
                None | Some(Continuity::None) => Continuity::None,
                Some(_) => Continuity::Lost { reason: "the mailbox was on the standby for a while".to_owned() },
            },
        })
    }

    /// Messages that both sides have by themselves.
    async fn pair(&self, work: &Work, report: &mut Report) -> anyhow::Result<()> {
        let mut effects = Effects::default();
        for pair in &work.merge.pairs {
            let fetched = work.primary.fetched.get(&pair.primary).or_else(|| work.standby.fetched.get(&pair.standby));
            let before = pair.row.and_then(|row| work.rows.get(&row));
            let (content, internal_date) = match (fetched, before) {
                (_, Some(row)) => (row.content, row.internal_date.clone()),
                (Some(fetched), None) => (fetched.content, fetched.row.internal_date.clone()),
                (None, None) => continue,
            };
            let set_aside = pair
                .altered
                .then(|| SetAside::Altered { reason: "the two sides hold it with other line ends or NUL".to_owned() });
            effects.added.push(MirrorMessage {
                folder: work.place.folder,
                uid: pair.primary,
                standby_uid: Some(pair.standby),
                content,
                flags: pair.flags.clone(),
                internal_date,
                set_aside: before.and_then(|row| row.set_aside.clone()).or(set_aside),
            });
            report.recognised += 1;
        }
        if effects.added.is_empty() {
            return Ok(());
        }
        self.record(&effects).await
    }

    async fn carry_home(
        &self,
        sides: &mut Sides,
        name: &FolderName,
        work: &mut Work,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let carries = std::mem::take(&mut work.merge.to_primary);
        for batch in carries.chunks(BATCH) {
            let messages = self.wanted(&mut sides.standby, work, batch, false).await?;
            let additions: Vec<_> =
                messages.iter().map(|(carry, fetched)| addition(work.place.folder, fetched, &carry.flags)).collect();
            let outcomes = self.depot.bring(&mut sides.primary, name, &additions).await?;
            let (mut gone, mut effects) = (UidSet::default(), Effects::default());
            for ((carry, fetched), outcome) in messages.iter().zip(&outcomes) {
                let Some(uid) = stored(outcome) else {
                    report.refused.push(refused(work, carry, "standby", outcome));
                    continue;
                };
                carry.row.into_iter().for_each(|row| gone.insert(row));
                effects.added.push(row(work, uid, carry.uid, fetched, carry, outcome));
                report.added_to_primary += 1;
            }
            self.replace(work.place.folder, gone, &effects).await?;
        }
        Ok(())
    }

    async fn carry_over(
        &self,
        sides: &mut Sides,
        name: &FolderName,
        work: &mut Work,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let carries = std::mem::take(&mut work.merge.to_standby);
        for batch in carries.chunks(BATCH) {
            let messages = self.wanted(&mut sides.primary, work, batch, true).await?;
            let additions: Vec<_> =
                messages.iter().map(|(carry, fetched)| addition(work.place.folder, fetched, &carry.flags)).collect();
            let outcomes = self.depot.bring(&mut sides.standby, name, &additions).await?;
            let (mut gone, mut effects) = (UidSet::default(), Effects::default());
            for ((carry, fetched), outcome) in messages.iter().zip(&outcomes) {
                let Some(uid) = stored(outcome) else {
                    report.refused.push(refused(work, carry, "primary", outcome));
                    continue;
                };
                carry.row.into_iter().for_each(|row| gone.insert(row));
                effects.added.push(row(work, carry.uid, uid, fetched, carry, outcome));
                report.added_to_standby += 1;
            }
            self.replace(work.place.folder, gone, &effects).await?;
        }
        Ok(())
    }

    /// The messages to bring, with their contents: those that were in common before are fetched now.
    async fn wanted(
        &self,
        from: &mut Standby,
        work: &Work,
        carries: &[Carry],
        from_primary: bool,
    ) -> anyhow::Result<Vec<(Carry, Fetched)>> {
        let (read, path) = match from_primary {
            true => (&work.primary, &work.place.primary),
            false => (&work.standby, &work.place.standby),
        };
        let lacking: UidSet =
            carries.iter().map(|carry| carry.uid).filter(|uid| !read.fetched.contains_key(uid)).collect();
        let mut more = HashMap::new();
        if let Some(path) = path.as_ref().filter(|_| !lacking.is_empty()) {
            let name = from.session().name_for(path);
            if from.examine(&name).await?.is_some() {
                let fetched = self.depot.fetch(from, &lacking).await?;
                more.extend(fetched.into_iter().map(|fetched| (fetched.row.uid, fetched)));
            }
        }
        let found = carries.iter().filter_map(|carry| {
            let fetched = read.fetched.get(&carry.uid).or_else(|| more.get(&carry.uid))?;
            Some((carry.clone(), fetched.clone()))
        });
        Ok(found.collect())
    }

    async fn set_flags(&self, sides: &mut Sides, work: &Work, report: &mut Report) -> anyhow::Result<()> {
        let (place, merge) = (&work.place, &work.merge);
        if let Some(path) = &place.primary {
            report.flags_on_primary += merge.primary_flags.len() as u64;
            flag_all(&mut sides.primary, path, &work.primary.side.messages, &merge.primary_flags).await?;
        }
        if let Some(path) = &place.standby {
            report.flags_on_standby += merge.standby_flags.len() as u64;
            flag_all(&mut sides.standby, path, &work.standby.side.messages, &merge.standby_flags).await?;
        }
        if merge.common_flags.is_empty() {
            return Ok(());
        }
        let mut effects = Effects::default();
        for (flags, uids) in grouped(&merge.common_flags) {
            effects.flags.push((place.folder, uids, flags));
        }
        self.record(&effects).await
    }

    /// Takes away what was removed on the other side; folders too, once nothing is left in them.
    async fn remove(&self, sides: &mut Sides, listed: &Listed, work: &Work, report: &mut Report) -> anyhow::Result<()> {
        let (place, merge) = (&work.place, &work.merge);
        let mut gone: UidSet = merge.forget.iter().copied().collect();
        for (side, path, uids) in [
            (&mut sides.primary, &place.primary, &merge.expunge_primary),
            (&mut sides.standby, &place.standby, &merge.expunge_standby),
        ] {
            let Some(path) = path.as_ref().filter(|_| !uids.is_empty()) else { continue };
            let name = side.session().name_for(path);
            carry::expunge(side, &name, uids.iter().map(|(uid, _)| *uid).collect()).await?;
            uids.iter().filter(|(_, row)| *row != NO_ROW).for_each(|(_, row)| gone.insert(*row));
        }
        report.removed_from_primary += merge.expunge_primary.len() as u64;
        report.removed_from_standby += merge.expunge_standby.len() as u64;
        if !gone.is_empty() {
            self.record(&Effects { expunged: vec![(place.folder, gone)], ..Effects::default() }).await?;
        }
        if goes(listed, work) {
            self.delete(sides, place, report).await?;
        }
        Ok(())
    }

    /// Deletes a folder that the other side does not have any more. Mail that came meanwhile keeps it.
    async fn delete(&self, sides: &mut Sides, place: &Place, report: &mut Report) -> anyhow::Result<()> {
        for (side, path) in [(&mut sides.primary, &place.primary), (&mut sides.standby, &place.standby)] {
            let Some(path) = path else { continue };
            side.close().await?;
            let name = side.session().name_for(path);
            let left = side.session().status(&name).await?.map_or(0, |status| status.messages);
            if left > 0 {
                report.moving = true;
                return Ok(());
            }
            side.session().delete(&name).await?;
            report.folders_changed += 1;
        }
        self.record(&Effects { deleted: vec![place.folder], ..Effects::default() }).await
    }

    async fn replace(&self, folder: FolderId, gone: UidSet, effects: &Effects) -> anyhow::Result<()> {
        let mut db = self.depot.pool.begin().await?;
        if !gone.is_empty() {
            let dropped = Effects { expunged: vec![(folder, gone)], ..Effects::default() };
            mirror::record(&mut db, self.mailbox, &dropped).await?;
        }
        mirror::record(&mut db, self.mailbox, effects).await?;
        db.commit().await?;
        Ok(())
    }

    async fn record(&self, effects: &Effects) -> anyhow::Result<()> {
        let mut db = self.depot.pool.begin().await?;
        mirror::record(&mut db, self.mailbox, effects).await?;
        db.commit().await?;
        Ok(())
    }
}

/// Does the folder go, since one side removed it and nothing in it is to be kept?
fn goes(listed: &Listed, work: &Work) -> bool {
    let place = &work.place;
    if place.fresh || place.wanted.is_inbox() {
        return false;
    }
    match (&place.primary, &place.standby) {
        (None, None) => true,
        (Some(_), None) => listed.standby_tells && work.merge.to_standby.is_empty(),
        (None, Some(_)) => work.primary.side.tells && work.merge.to_primary.is_empty(),
        (Some(_), Some(_)) => false,
    }
}

/// What a dry pass would do with a folder.
fn count(listed: &Listed, work: &Work, report: &mut Report) {
    let merge = &work.merge;
    report.added_to_primary += merge.to_primary.len() as u64;
    report.added_to_standby += merge.to_standby.len() as u64;
    report.flags_on_primary += merge.primary_flags.len() as u64;
    report.flags_on_standby += merge.standby_flags.len() as u64;
    report.removed_from_primary += merge.expunge_primary.len() as u64;
    report.removed_from_standby += merge.expunge_standby.len() as u64;
    report.recognised += merge.pairs.len() as u64;
    let one_sided = work.place.primary.is_none() != work.place.standby.is_none();
    report.folders_changed += u64::from(one_sided || goes(listed, work));
}

fn refused(work: &Work, carry: &Carry, side: &'static str, outcome: &Outcome) -> Refused {
    let reason = match outcome {
        Outcome::Refused(reason) => reason.clone(),
        Outcome::Stored(_) | Outcome::Altered(..) => String::new(),
    };
    Refused { folder: work.place.wanted.to_string(), uid: carry.uid.0, side, reason }
}

fn row(work: &Work, primary: Uid, standby: Uid, fetched: &Fetched, carry: &Carry, outcome: &Outcome) -> MirrorMessage {
    let set_aside = match outcome {
        Outcome::Altered(_, reason) => Some(SetAside::Altered { reason: reason.clone() }),
        Outcome::Stored(_) | Outcome::Refused(_) => None,
    };
    MirrorMessage {
        folder: work.place.folder,
        uid: primary,
        standby_uid: Some(standby),
        content: fetched.content,
        flags: carry.flags.clone(),
        internal_date: fetched.row.internal_date.clone(),
        set_aside,
    }
}

fn grouped(flags: &[(Uid, Vec<String>)]) -> BTreeMap<Vec<String>, UidSet> {
    let mut groups: BTreeMap<Vec<String>, UidSet> = BTreeMap::new();
    for (uid, flags) in flags {
        groups.entry(flags.clone()).or_default().insert(*uid);
    }
    groups
}

/// Changes flags from what was read to what is wanted. Only the difference is written: what the user flagged since the reading stays.
async fn flag_all(
    side: &mut Standby,
    path: &FolderPath,
    read: &BTreeMap<Uid, Flags>,
    wanted: &[(Uid, Flags)],
) -> Result<(), Error> {
    let name = side.session().name_for(path);
    let none = Flags::new();
    let mut groups: BTreeMap<(Flags, Flags), UidSet> = BTreeMap::new();
    for (uid, wanted) in wanted {
        let read = read.get(uid).unwrap_or(&none);
        groups.entry((lacking(wanted, read), lacking(read, wanted))).or_default().insert(*uid);
    }
    for ((added, removed), uids) in groups {
        carry::change_flags(side, &name, uids, added, removed).await?;
    }
    Ok(())
}
