//! The mass-change brake: decides, before a transaction is applied, whether what it removes waits for a person.
//!
//! In: a transaction, the mirror, what was removed lately. Out: [`Parking`]: what is left on the standby meanwhile.
//! Keeps true: the same transaction against the same mirror and limits is judged the same, so a crash changes nothing; additions always go on;
//! a message whose content stays elsewhere in the mailbox (a move, another UIDVALIDITY) is not destroyed; what is added meanwhile makes no
//! loss smaller.
//! Not here: carrying out what a person released (`release`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use understudy_database::{
    brake::{self, Park, Removal},
    journal,
    mirror::{Effects, MirrorFolder},
};
use understudy_imap_session::ContentSource;
use understudy_protocol::{
    Change, ContentRef, Digest, FolderId, FolderPath, MailboxId, Seq, TenantId, Transaction, Uid, UidSet, policy,
};

use crate::store::Store;

/// Rows of the mirror read at once.
const SLICE: i64 = 10_000;
/// Transactions of the journal read at once.
const TRANSACTIONS: i64 = 50;
/// A mailbox with so many messages that loses all of them in one look is held, however few that are.
const EMPTIED: i64 = 10;
/// Subjects noted of each folder: so many of the first, so many of the last.
const SUBJECTS: i64 = 5;
/// Where a subject is looked for, in bytes.
const HEAD_BYTES: u64 = 64 << 10;

/// How much may be removed before a person is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrakeConfig {
    pub enabled: bool,
    /// More than this share of a mailbox, from 0 to 1, …
    pub share: f64,
    /// … and at least so many messages, …
    pub messages: u32,
    /// … within this time.
    pub within: Duration,
}

impl Default for BrakeConfig {
    fn default() -> Self {
        Self { enabled: true, share: 0.5, messages: 50, within: Duration::from_secs(600) }
    }
}

impl BrakeConfig {
    /// As a mailbox's policy wants it; what that does not say is as the configuration has it.
    fn of(self, policy: &policy::Brake) -> Self {
        Self {
            enabled: policy.enabled.unwrap_or(self.enabled),
            share: policy.share.unwrap_or(self.share),
            messages: policy.messages.unwrap_or(self.messages),
            within: policy.within_seconds.map_or(self.within, Duration::from_secs),
        }
    }
}

/// What of a transaction is left on the standby until a person decides; and what it removes, for the next one's judgement.
#[derive(Default)]
pub(crate) struct Parking {
    /// Why; none when nothing is parked.
    held: Option<Value>,
    messages: BTreeMap<FolderId, UidSet>,
    park: Park,
    renamed: Vec<(String, FolderPath, String)>,
    removals: BTreeMap<FolderId, UidSet>,
    captured_at: DateTime<Utc>,
    since: DateTime<Utc>,
}

impl Parking {
    /// Does what this transaction removes wait for a person?
    pub(crate) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Of these messages, those that are removed from the standby all the same. What is parked of them is noted.
    pub(crate) fn spare(&mut self, folder: &MirrorFolder, uids: &UidSet) -> UidSet {
        let Some(parked) = self.messages.get(&folder.folder) else { return uids.clone() };
        self.park.folders.insert(folder.folder, folder.clone());
        self.park.messages.insert(folder.folder, parked.clone());
        without(uids, parked)
    }

    /// The folder itself stays on the standby too.
    pub(crate) fn keep_folder(&mut self, folder: &MirrorFolder) {
        self.park.folders.insert(folder.folder, folder.clone());
        self.park.deleted.push(folder.folder);
    }

    pub(crate) fn keep_subscription(&mut self, path: &FolderPath) {
        self.park.unsubscribed.push(path.clone());
    }

    /// A parked folder has another name on the standby now.
    pub(crate) fn rename(&mut self, from: &str, path: FolderPath, to: String) {
        self.renamed.push((from.to_owned(), path, to));
    }

    /// Writes which parked folders have other names, together with the mirror's renames.
    pub(crate) async fn note_renames(
        &mut self,
        db: &mut PgConnection,
        mailbox: MailboxId,
    ) -> understudy_database::Result<()> {
        for (from, path, to) in self.renamed.drain(..) {
            brake::renamed(&mut *db, mailbox, &from, &path, &to).await?;
        }
        Ok(())
    }

    /// Writes what is parked, while the mirror still knows it.
    pub(crate) async fn before(
        &self,
        db: &mut PgConnection,
        mailbox: MailboxId,
        seq: Seq,
    ) -> understudy_database::Result<()> {
        if let Some(detail) = &self.held {
            brake::park(&mut *db, mailbox, seq, &self.park).await?;
            if brake::hold(db, mailbox, detail).await? {
                metrics::counter!("understudy_brake_holds_total").increment(1);
                tracing::warn!(mailbox.id = %mailbox, txn.seq = %seq, "Many messages were removed at once: they stay on the standby until somebody says whether that was meant");
            }
        } else if !self.removals.is_empty() {
            brake::note_removals(db, mailbox, &self.removals, self.captured_at, self.since).await?;
        }
        Ok(())
    }

    /// Brings what is parked in line with the mirror as it is now.
    pub(crate) async fn after(
        &self,
        db: &mut PgConnection,
        mailbox: MailboxId,
        seq: Seq,
        added: &[(String, Vec<Uid>)],
    ) -> understudy_database::Result<()> {
        if self.holds() {
            brake::offer(&mut *db, mailbox, seq).await?;
        }
        for (standby_name, uids) in added {
            brake::taken_over(&mut *db, mailbox, standby_name, uids).await?;
        }
        brake::settle(db, mailbox).await?;
        Ok(())
    }
}

/// Which of the added messages are where on the standby.
pub(crate) fn added(effects: &Effects, folders: &BTreeMap<FolderId, MirrorFolder>) -> Vec<(String, Vec<Uid>)> {
    let mut added: BTreeMap<&str, Vec<Uid>> = BTreeMap::new();
    for message in &effects.added {
        if let (Some(folder), Some(uid)) = (folders.get(&message.folder), message.standby_uid) {
            added.entry(&folder.standby_name).or_default().push(uid);
        }
    }
    added.into_iter().map(|(name, uids)| (name.to_owned(), uids)).collect()
}

/// Judges a transaction before it is applied.
pub(crate) async fn judge(
    config: &BrakeConfig,
    pool: &PgPool,
    transaction: &Transaction,
    folders: &BTreeMap<FolderId, MirrorFolder>,
) -> anyhow::Result<Parking> {
    let removals = removals(&transaction.changes);
    let unsubscribes = transaction
        .changes
        .iter()
        .any(|change| matches!(change, Change::SubscriptionChanged { subscribed: false, .. }));
    if removals.is_empty() && !unsubscribes {
        return Ok(Parking::default());
    }
    let mailbox = transaction.mailbox;
    let config = &config.of(&understudy_database::policy::of_mailbox(pool, mailbox).await?.brake);
    let captured_at = transaction.captured_at;
    let since = captured_at - chrono::Duration::from_std(config.within).unwrap_or(chrono::Duration::days(36_500));
    let standing = brake::standing(pool, mailbox, &removals, since).await?;
    let mut parking = Parking { removals, captured_at, since, ..Parking::default() };
    let deleted: Vec<FolderId> = deleted(&transaction.changes);
    let inbox: Option<FolderId> =
        deleted.iter().copied().find(|id| folders.get(id).is_some_and(|folder| folder.path.is_inbox()));
    let suspicious = config.enabled
        && standing.removing > 0
        && (standing.removing + standing.lately >= i64::from(config.messages)
            || inbox.is_some()
            || (standing.removing >= EMPTIED && !brake::has_more_than(pool, mailbox, standing.removing).await?));
    if !standing.held && !suspicious {
        return Ok(parking);
    }
    let toll = toll(pool, transaction, &parking.removals, since).await?;
    if !standing.held && !toll.is_mass(config) && !toll.is_rewritten(config) && !toll.is_emptied(inbox, folders) {
        return Ok(parking);
    }
    parking.held = Some(toll.detail(config));
    for removal in toll.vanishing {
        parking.messages.entry(removal.folder).or_default().insert(removal.uid);
    }
    Ok(parking)
}

fn removals(changes: &[Change]) -> BTreeMap<FolderId, UidSet> {
    let mut removals: BTreeMap<FolderId, UidSet> = BTreeMap::new();
    for change in changes {
        match change {
            Change::MessagesExpunged { folder, uids } => {
                let all = removals.entry(*folder).or_default();
                uids.ranges().for_each(|(low, high)| all.insert_range(low, high));
            }
            Change::FolderDeleted { folder } => {
                removals.insert(*folder, UidSet::range(Uid(1), Uid(u32::MAX)));
            }
            _ => {}
        }
    }
    removals
}

fn deleted(changes: &[Change]) -> Vec<FolderId> {
    let deleted = |change: &Change| match change {
        Change::FolderDeleted { folder } => Some(*folder),
        _ => None,
    };
    changes.iter().filter_map(deleted).collect()
}

/// What a transaction costs the mailbox.
struct Toll {
    /// Messages whose content is nowhere in the mailbox afterwards.
    vanishing: Vec<Removal>,
    /// Of those removed lately, how many whose content is nowhere afterwards.
    lately: i64,
    /// Messages before it.
    live: i64,
    /// Messages after it.
    left: i64,
    /// Messages that were there before the window, …
    old: i64,
    /// … and of these, those whose content is nowhere afterwards.
    old_lost: i64,
}

/// Messages that were added within the window before a transaction, other than by the first copy.
async fn fresh(
    pool: &PgPool,
    transaction: &Transaction,
    since: DateTime<Utc>,
) -> anyhow::Result<HashMap<(FolderId, Uid), Digest>> {
    let mut fresh = HashMap::new();
    let mut seq = transaction.seq;
    loop {
        let earlier = journal::before(pool, transaction.mailbox, seq, TRANSACTIONS).await?;
        for transaction in &earlier {
            if transaction.seed || transaction.captured_at <= since {
                return Ok(fresh);
            }
            fresh.extend(transaction.changes.iter().filter_map(|change| match change {
                Change::MessageAdded(added) => Some(((added.folder, added.uid), added.content.digest)),
                _ => None,
            }));
        }
        match earlier.last() {
            Some(last) => seq = last.seq,
            None => return Ok(fresh),
        }
    }
}

async fn toll(
    pool: &PgPool,
    transaction: &Transaction,
    removals: &BTreeMap<FolderId, UidSet>,
    since: DateTime<Utc>,
) -> anyhow::Result<Toll> {
    let mailbox = transaction.mailbox;
    let added: HashSet<Digest> = transaction
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::MessageAdded(added) => Some(added.content.digest),
            _ => None,
        })
        .collect();
    let gone = brake::removals(pool, mailbox, removals).await?;
    let lately = brake::removed_since(pool, mailbox, since).await?;
    let fresh = fresh(pool, transaction, since).await?;
    let fresh_contents: HashSet<Digest> = fresh.values().copied().collect();
    // What was moved is not new where it is now.
    let taken: HashSet<Digest> = gone.iter().map(|removal| removal.digest).chain(lately.iter().copied()).collect();
    let mut nowhere: HashSet<Digest> = gone
        .iter()
        .map(|removal| removal.digest)
        .chain(lately.iter().copied())
        .filter(|d| !added.contains(d))
        .collect();
    let (mut live, mut old) = (0, 0);
    let mut left = i64::try_from(added.len()).unwrap_or(i64::MAX);
    let mut after = (FolderId(0), Uid(0));
    loop {
        let slice = brake::held_messages(pool, mailbox, after, SLICE).await?;
        let Some(last) = slice.last() else { break };
        after = (last.folder, last.uid);
        for message in slice {
            live += 1;
            old += i64::from(!fresh.contains_key(&(message.folder, message.uid)) || taken.contains(&message.digest));
            if !removals.get(&message.folder).is_some_and(|uids| uids.contains(message.uid)) {
                left += 1;
                nowhere.remove(&message.digest);
            }
        }
    }
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let is_old = |digest: &Digest| !fresh_contents.contains(digest);
    let vanishing: Vec<Removal> = gone.into_iter().filter(|removal| nowhere.contains(&removal.digest)).collect();
    let lately: Vec<Digest> = lately.into_iter().filter(|digest| nowhere.contains(digest)).collect();
    let old_lately = count(lately.iter().filter(|digest| is_old(digest)).count());
    Ok(Toll {
        old: old + old_lately,
        old_lost: count(vanishing.iter().filter(|removal| is_old(&removal.digest)).count()) + old_lately,
        vanishing,
        lately: count(lately.len()),
        live,
        left,
    })
}

impl Toll {
    fn lost(&self) -> i64 {
        i64::try_from(self.vanishing.len()).unwrap_or(i64::MAX).saturating_add(self.lately)
    }

    fn before(&self) -> i64 {
        self.live + self.lately
    }

    fn is_mass(&self, config: &BrakeConfig) -> bool {
        self.is_too_much(self.lost(), self.before(), config)
    }

    /// The same where others came in their place, which must not make it look like less: a client that alters every message.
    fn is_rewritten(&self, config: &BrakeConfig) -> bool {
        self.is_too_much(self.old_lost, self.old, config)
    }

    fn is_too_much(&self, lost: i64, of: i64, config: &BrakeConfig) -> bool {
        // Counts of messages are far below what a float holds exactly.
        #[expect(clippy::cast_precision_loss)]
        let share = lost as f64 / of.max(1) as f64;
        !self.vanishing.is_empty() && lost >= i64::from(config.messages) && share > config.share
    }

    /// Nothing is left, or a new and empty INBOX took the place of one with messages: a primary that came back empty.
    fn is_emptied(&self, inbox: Option<FolderId>, folders: &BTreeMap<FolderId, MirrorFolder>) -> bool {
        let inbox_lost = inbox.is_some_and(|inbox| {
            folders.contains_key(&inbox) && self.vanishing.iter().any(|removal| removal.folder == inbox)
        });
        inbox_lost || (self.left == 0 && self.lost() >= EMPTIED)
    }

    fn detail(&self, config: &BrakeConfig) -> Value {
        let (lost, before) = (self.lost(), self.before());
        let minutes = config.within.as_secs().div_ceil(60);
        let reason = if self.left == 0 {
            format!("the primary shows none of the {before} messages any more")
        } else if !self.is_mass(config) && self.is_rewritten(config) {
            let (lost, before) = (self.old_lost, self.old);
            format!("{lost} of {before} messages were replaced by others on the primary within {minutes} min")
        } else {
            format!("{lost} of {before} messages were removed on the primary within {minutes} min")
        };
        json!({
            "kind": "held",
            "fault": false,
            "reason": format!("{reason}; what the brake stopped is still on the standby, new mail goes on arriving there"),
            "remedy": "See what would be removed with `understudy mailbox held ADDRESS`; then `understudy mailbox release \
                       ADDRESS` if it was meant, or `understudy mailbox discard ADDRESS` to keep it on the standby. Mail \
                       that comes back to the primary resolves it by itself.",
        })
    }
}

/// `all` without `some`.
fn without(all: &UidSet, some: &UidSet) -> UidSet {
    let mut left = UidSet::default();
    let mut holes = some.ranges().peekable();
    for (low, high) in all.ranges() {
        let mut from = u64::from(low.0);
        while let Some(&(hole_low, hole_high)) = holes.peek() {
            if u64::from(hole_high.0) < from {
                holes.next();
                continue;
            }
            if hole_low > high {
                break;
            }
            if u64::from(hole_low.0) > from {
                left.insert_range(uid(from), Uid(hole_low.0 - 1));
            }
            from = u64::from(hole_high.0) + 1;
            if hole_high >= high {
                break;
            }
        }
        if from <= u64::from(high.0) {
            left.insert_range(uid(from), high);
        }
    }
    left
}

fn uid(number: u64) -> Uid {
    Uid(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Notes subjects of some of what is parked, for the person who decides. Best effort: the decision does not depend on it.
pub(crate) async fn describe(pool: &PgPool, store: &Store, tenant: TenantId, mailbox: MailboxId) -> anyhow::Result<()> {
    let wanted = brake::to_describe(pool, mailbox, SUBJECTS).await?;
    let mut seen: HashMap<Digest, String> = HashMap::new();
    for (folder, uid, digest, size) in wanted {
        let subject = match seen.get(&digest) {
            Some(subject) => subject.clone(),
            None => subject(store, tenant, ContentRef { digest, size }).await.unwrap_or_default(),
        };
        brake::describe(pool, folder, uid, &subject).await?;
        seen.insert(digest, subject);
    }
    Ok(())
}

async fn subject(store: &Store, tenant: TenantId, content: ContentRef) -> anyhow::Result<String> {
    let mut contents = store.contents(tenant, &[content]).await?;
    let mut head = vec![0; usize::try_from(content.size.min(HEAD_BYTES))?];
    let mut filled = 0;
    while filled < head.len() {
        let read = contents.read(0, u64::try_from(filled)?, &mut head[filled..]).await?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    let parsed = mail_parser::MessageParser::new().parse_headers(&head[..filled]);
    // PostgreSQL's text takes no NUL.
    Ok(parsed.and_then(|message| message.subject().map(|subject| subject.replace('\0', ""))).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_without_another() {
        let set = |text: &str| -> UidSet { text.parse().unwrap() };
        for (all, some, expected) in [
            ("1:10", "3:4", "1:2,5:10"),
            ("1:10", "1:10", ""),
            ("1:10", "10:20", "1:9"),
            ("5:6,8", "1:5,8:9", "6"),
            ("1:4294967295", "2,4294967295", "1,3:4294967294"),
            ("3", "", "3"),
            ("1:3,5:9", "2:6", "1,7:9"),
        ] {
            let some = if some.is_empty() { UidSet::default() } else { set(some) };
            let left: Vec<(Uid, Uid)> = without(&set(all), &some).ranges().collect();
            let wanted = if expected.is_empty() { UidSet::default() } else { set(expected) };
            assert_eq!(left, wanted.ranges().collect::<Vec<_>>(), "{all} without {some}");
        }
    }

    fn toll(vanishing: u32, lately: i64, live: i64, left: i64) -> Toll {
        let removal = |uid| Removal { folder: FolderId(1), uid: Uid(uid), digest: Digest::of(&uid.to_be_bytes()) };
        Toll { vanishing: (1..=vanishing).map(removal).collect(), lately, old_lost: 0, old: 0, live, left }
    }

    #[test]
    fn share_and_number_must_both_be_passed() {
        let config = BrakeConfig::default();
        for (vanishing, lately, live, is_mass) in
            [(30, 0, 40, false), (50, 0, 100, false), (51, 0, 100, true), (20, 40, 60, true), (0, 100, 20, false)]
        {
            assert_eq!(toll(vanishing, lately, live, 1).is_mass(&config), is_mass, "{vanishing} {lately} {live}");
        }
    }

    #[test]
    fn an_empty_primary_is_noticed_however_small_the_mailbox() {
        let folders = BTreeMap::new();
        assert!(toll(10, 0, 10, 0).is_emptied(None, &folders));
        assert!(!toll(9, 0, 9, 0).is_emptied(None, &folders));
        assert!(!toll(10, 0, 11, 1).is_emptied(None, &folders));
    }
}
