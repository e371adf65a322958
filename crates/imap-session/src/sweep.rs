//! One look at all folders of a mailbox.
//!
//! Keeps true: a sweep is a value only after every tagged OK. What a NOTIFY pushes in between only makes it newer: a
//! partial STATUS updates the counters it names.

use std::collections::{BTreeSet, HashMap};

use understudy_protocol::{FolderPath, ModSeq, Uid, UidValidity};

use crate::{
    Error, FolderName, Result, Session,
    line::Line,
    naming::is_cyrus,
    response::{Status, Untagged},
    token::{Token, Tokens},
};

/// One look at all personal folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Sorted by path.
    pub folders: Vec<ListedFolder>,
    /// Every subscribed name, sorted; also of folders that do not exist.
    pub subscriptions: Vec<FolderPath>,
}

/// One folder of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFolder {
    /// As the server spells it.
    pub name: FolderName,
    pub path: FolderPath,
    /// False for a level that only holds other folders.
    pub selectable: bool,
    /// `sent`, `drafts`, … (RFC 6154): lower-case, no backslash, sorted.
    pub special_use: Vec<String>,
    pub subscribed: bool,
    /// `None` when the server did not say, as for a folder deleted meanwhile. Never a proof of deletion.
    pub status: Option<FolderStatus>,
    /// MAILBOXID (RFC 8474) or Dovecot's X-GUID: stays through a rename.
    pub identity: Option<String>,
}

/// Counters of one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderStatus {
    pub messages: u32,
    pub uid_next: Uid,
    pub uid_validity: UidValidity,
    /// 0 where the server keeps none.
    pub mod_seq: ModSeq,
}

/// What Cyrus calls a folder's MAILBOXID among its annotations.
const CYRUS_ID: &str = "/shared/vendor/cmu/cyrus-imapd/uniqueid";

/// Where MAILBOXIDs are said. They are asked anew by every sweep: folders made in one second share their UIDVALIDITY, so
/// nothing else tells that two have changed places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    Nowhere,
    /// In STATUS, as all else (RFC 8474 §4.3).
    InStatus,
    /// In METADATA within LIST: beside other STATUS items, Cyrus 3.6 sends octets of freed memory for MAILBOXID.
    InMetadata,
    /// In a STATUS of each folder that asks for nothing else.
    Apart,
}

/// RFC 6154 §2 and RFC 8457.
const SPECIAL_USES: [&str; 8] = ["all", "archive", "drafts", "flagged", "junk", "sent", "trash", "important"];

/// One name of a listing and what was said about it.
#[derive(Debug, Default)]
struct Listed {
    selectable: bool,
    /// Listed, and not as `\NonExistent`.
    exists: bool,
    special_use: BTreeSet<String>,
    counters: Counters,
}

/// What STATUS lines said, the latest of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    messages: Option<u32>,
    uid_next: Option<Uid>,
    uid_validity: Option<UidValidity>,
    mod_seq: Option<ModSeq>,
    pub(crate) identity: Option<String>,
}

impl Counters {
    /// Reads `(MESSAGES 3 UIDNEXT 4 …)`.
    pub(crate) fn read(&mut self, arguments: &mut Tokens<'_>) -> Option<()> {
        if !arguments.open() {
            return None;
        }
        loop {
            let item = match arguments.next()? {
                Token::Close => return Some(()),
                Token::Atom(item) => item,
                Token::Open | Token::Text(_) => return None,
            };
            let is = |name: &str| item.eq_ignore_ascii_case(name.as_bytes());
            if is("MESSAGES") {
                self.messages = Some(arguments.number32()?);
            } else if is("UIDNEXT") {
                self.uid_next = Some(Uid(arguments.number32()?));
            } else if is("UIDVALIDITY") {
                self.uid_validity = Some(UidValidity(arguments.number32()?));
            } else if is("HIGHESTMODSEQ") {
                self.mod_seq = Some(ModSeq(arguments.number()?));
            } else if is("X-GUID") || is("MAILBOXID") {
                let bracketed = arguments.open();
                let identity = arguments.nil_or_string()?;
                self.identity = identity.and_then(|identity| String::from_utf8(identity.into_owned()).ok());
                if bracketed {
                    arguments.next()?;
                }
            } else {
                arguments.skip_value()?;
            }
        }
    }

    pub(crate) fn status(&self) -> Option<FolderStatus> {
        Some(FolderStatus {
            messages: self.messages?,
            uid_next: self.uid_next?,
            uid_validity: self.uid_validity?,
            mod_seq: self.mod_seq.unwrap_or_default(),
        })
    }
}

/// Everything a listing's commands said, by name.
#[derive(Debug, Default)]
struct Listing {
    names: HashMap<Vec<u8>, Listed>,
    subscribed: BTreeSet<Vec<u8>>,
}

impl Listing {
    fn heard(&mut self, untagged: &Untagged<'_>, subscriptions: bool) -> Result<bool> {
        const UNREADABLE: Error = Error::Protocol("its list of folders could not be read");
        if let Some(mut arguments) = untagged.data("STATUS") {
            let name = arguments.string().ok_or(UNREADABLE)?;
            self.names.entry(canonical(&name)).or_default().counters.read(&mut arguments).ok_or(UNREADABLE)?;
            return Ok(true);
        }
        if let Some(mut arguments) = untagged.data("METADATA") {
            let name = arguments.string().ok_or(UNREADABLE)?;
            if let Some(identity) = read_cyrus_id(&mut arguments) {
                self.names.entry(canonical(&name)).or_default().counters.identity = Some(identity);
            }
            return Ok(true);
        }
        let lsub = untagged.data("LSUB");
        let Some(mut arguments) = lsub.or_else(|| untagged.data("LIST")) else { return Ok(false) };
        if !arguments.open() {
            return Err(UNREADABLE);
        }
        let mut attributes = Vec::new();
        loop {
            match arguments.next().ok_or(UNREADABLE)? {
                Token::Close => break,
                Token::Atom(attribute) => attributes.push(String::from_utf8_lossy(attribute).to_ascii_lowercase()),
                Token::Open | Token::Text(_) => return Err(UNREADABLE),
            }
        }
        arguments.skip_value().ok_or(UNREADABLE)?;
        let name = canonical(&arguments.string().ok_or(UNREADABLE)?);
        let has = |wanted: &str| attributes.iter().any(|attribute| attribute == wanted);
        if subscriptions || lsub.is_some() {
            // LSUB marks a level above a subscribed folder with \Noselect (RFC 3501 §6.3.9).
            let subscribed = if lsub.is_some() { !has("\\noselect") } else { has("\\subscribed") };
            if subscribed {
                self.subscribed.insert(name);
            }
            return Ok(true);
        }
        let listed = self.names.entry(name).or_default();
        listed.exists = !has("\\nonexistent");
        listed.selectable = listed.exists && !has("\\noselect");
        listed.special_use.extend(
            SPECIAL_USES.iter().filter(|&&special| has(&format!("\\{special}"))).map(|&special| special.to_owned()),
        );
        Ok(true)
    }
}

/// INBOX has one spelling.
pub(crate) fn canonical(name: &[u8]) -> Vec<u8> {
    if name.eq_ignore_ascii_case(b"INBOX") { b"INBOX".to_vec() } else { name.to_vec() }
}

impl Session {
    /// One look at all personal folders: names, counters, identities, subscriptions.
    pub async fn sweep(&mut self) -> Result<Sweep> {
        let mut items = self.status_items().await?;
        let ids = self.ids();
        if ids == Ids::InStatus {
            items.push_str(" MAILBOXID");
        }
        let extended = self.offers("LIST-EXTENDED");
        let with_status = extended && self.offers("LIST-STATUS");
        let mut returned = Vec::new();
        if extended && self.offers("SPECIAL-USE") {
            returned.push("SPECIAL-USE".to_owned());
        }
        if with_status {
            returned.push(format!("STATUS ({items})"));
        }
        if ids == Ids::InMetadata {
            returned.push(format!("METADATA (\"{CYRUS_ID}\")"));
        }
        let list = if returned.is_empty() {
            "LIST \"\" \"*\"".to_owned()
        } else {
            format!("LIST \"\" \"*\" RETURN ({})", returned.join(" "))
        };
        let subscriptions = if extended { "LIST (SUBSCRIBED) \"\" \"*\"" } else { "LSUB \"\" \"*\"" };
        let mut listing = Listing::default();
        let lines = [Line::new(list), Line::new(subscriptions)];
        let outcomes = self.conversation.ask_all(&lines, &mut |index, said| listing.heard(said, index == 1)).await?;
        // Both answers are LIST lines: told apart only by their order, which RFC 3501 §5.5 asks servers to keep.
        if !outcomes.is_sorted_by_key(|outcome| outcome.arrival) {
            return Err(Error::Protocol("it answered commands out of order"));
        }
        for outcome in outcomes {
            outcome.ok("LIST")?;
        }
        if !with_status {
            self.ask_each(&mut listing, &items, |listed| listed.counters.status().is_none()).await?;
        }
        if ids == Ids::Apart {
            self.ask_each(&mut listing, "MAILBOXID", |_| true).await?;
        }
        Ok(self.finish_sweep(listing))
    }

    /// The counters of one folder; `None` when there is no such folder.
    pub async fn status(&mut self, name: &FolderName) -> Result<Option<FolderStatus>> {
        let items = self.status_items().await?;
        let mut counters = Counters::default();
        let line = Line::new("STATUS").name(name).text(&format!(" ({items})"));
        let outcome = self.conversation.ask(line, &mut |_, said| read_status(said, name, &mut counters)).await?;
        if outcome.status == Status::No {
            return self.missing_or(outcome, "STATUS", name).await;
        }
        outcome.ok("STATUS")?;
        counters.status().map(Some).ok_or(Error::Protocol("it did not answer STATUS"))
    }

    /// The items to ask of every folder, without MAILBOXID.
    async fn status_items(&mut self) -> Result<String> {
        let mut items = "MESSAGES UIDNEXT UIDVALIDITY".to_owned();
        if self.offers("CONDSTORE") || self.offers("QRESYNC") {
            items.push_str(" HIGHESTMODSEQ");
        }
        if self.has_guids().await? {
            items.push_str(" X-GUID");
        }
        Ok(items)
    }

    /// Does the server answer X-GUID? Dovecot does and does not announce it, so it is asked once.
    pub(crate) async fn has_guids(&mut self) -> Result<bool> {
        if let Some(known) = self.guids {
            return Ok(known);
        }
        let mut answered = false;
        // RFC 8474 servers have their own identities. Others may answer BAD, which here means no more than "no".
        if !self.offers("OBJECTID") {
            let line = Line::new("STATUS INBOX (X-GUID)");
            let outcome = self
                .conversation
                .ask(line, &mut |_, said| {
                    let mut counters = Counters::default();
                    let read = read_status(said, &FolderName::from("INBOX"), &mut counters);
                    answered |= counters.identity.is_some();
                    read
                })
                .await?;
            answered &= outcome.status == Status::Ok;
        }
        self.guids = Some(answered);
        Ok(answered)
    }

    /// STATUS of every selectable folder that still needs it. A refusal leaves the folder without counters.
    async fn ask_each(
        &mut self,
        listing: &mut Listing,
        items: &str,
        needs: impl Fn(&Listed) -> bool + Send,
    ) -> Result<()> {
        let lines: Vec<Line> = listing
            .names
            .iter()
            .filter(|(_, listed)| listed.selectable && needs(listed))
            .map(|(name, _)| Line::new("STATUS").name(&FolderName::new(name.clone())).text(&format!(" ({items})")))
            .collect();
        self.conversation.ask_all(&lines, &mut |_, said| listing.heard(said, false)).await?;
        Ok(())
    }

    fn ids(&self) -> Ids {
        match (self.offers("OBJECTID"), self.software().is_some_and(is_cyrus)) {
            (false, _) => Ids::Nowhere,
            (true, false) => Ids::InStatus,
            (true, true) if self.offers("LIST-EXTENDED") && self.offers("LIST-METADATA") => Ids::InMetadata,
            (true, true) => Ids::Apart,
        }
    }

    fn finish_sweep(&mut self, listing: Listing) -> Sweep {
        let Listing { names, subscribed } = listing;
        let mut sweep = Sweep::default();
        let mut folders = Vec::new();
        let mut levels = BTreeSet::new();
        for (name, listed) in names {
            let Some(path) = self.naming.path(&name) else { continue };
            if listed.exists {
                let above = std::iter::successors(path.parent(), FolderPath::parent);
                levels.extend(above);
            }
            let subscribed = subscribed.contains(&name);
            let name = FolderName::new(name);
            self.naming.learn(&path, &name);
            let folder = ListedFolder {
                name,
                path,
                selectable: listed.selectable,
                special_use: listed.special_use.into_iter().collect(),
                subscribed,
                status: listed.counters.status().filter(|_| listed.selectable),
                identity: listed.counters.identity.filter(|_| listed.selectable),
            };
            folders.push((folder, listed.exists));
        }
        // A name that does not exist is there for the folders below it; without any, it was deleted meanwhile.
        folders.retain(|(folder, exists)| *exists || levels.contains(&folder.path));
        sweep.folders = folders.into_iter().map(|(folder, _)| folder).collect();
        sweep.folders.sort_by(|a, b| a.path.cmp(&b.path));
        sweep.subscriptions = subscribed.iter().filter_map(|name| self.naming.path(name)).collect();
        sweep.subscriptions.sort();
        sweep.subscriptions.dedup();
        sweep
    }
}

/// Reads `("/shared/vendor/cmu/cyrus-imapd/uniqueid" "cepokp4anmmmycfl28ncsbe3")`.
fn read_cyrus_id(arguments: &mut Tokens<'_>) -> Option<String> {
    let entry = arguments.open().then(|| arguments.string())??;
    let value = arguments.nil_or_string()??;
    (*entry == *CYRUS_ID.as_bytes()).then(|| String::from_utf8(value.into_owned()).ok())?
}

/// Takes a STATUS of `name` into `counters`.
fn read_status(said: &Untagged<'_>, name: &FolderName, counters: &mut Counters) -> Result<bool> {
    const UNREADABLE: Error = Error::Protocol("its answer to STATUS could not be read");
    let Some(mut arguments) = said.data("STATUS") else { return Ok(false) };
    if canonical(&arguments.string().ok_or(UNREADABLE)?) != canonical(name.as_bytes()) {
        return Ok(false);
    }
    counters.read(&mut arguments).ok_or(UNREADABLE)?;
    Ok(true)
}
