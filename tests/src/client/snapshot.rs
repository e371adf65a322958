//! Everything that users can see of a mailbox, at one moment.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use chrono::DateTime;

use super::{Client, Value};

/// The attributes by which folders have a special use (RFC 6154).
const SPECIAL_USES: [&str; 7] = ["\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Junk", "\\Sent", "\\Trash"];

/// A mailbox as its user sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By name, with `/` between levels.
    pub folders: BTreeMap<String, Folder>,
    pub subscriptions: BTreeSet<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    pub selectable: bool,
    pub special_uses: BTreeSet<String>,
    pub uid_validity: u32,
    pub uid_next: u32,
    /// HIGHESTMODSEQ.
    pub mod_seq: u64,
    /// How many messages no session has seen yet.
    pub recent: u32,
    /// In UID order.
    pub messages: Vec<Message>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub uid: u32,
    pub digest: blake3::Hash,
    pub size: usize,
    /// Without `\Recent`; keywords in lower case, as servers may spell them as they were first spelt.
    pub flags: BTreeSet<String>,
    /// INTERNALDATE as an instant: servers need not keep its zone.
    pub date: i64,
}

impl Client {
    /// Looks at everything and changes nothing.
    pub async fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for response in self.command("LIST \"\" \"*\" RETURN (SPECIAL-USE CHILDREN)").await? {
            let [_, kind, attributes, separator, name] = response.as_slice() else { continue };
            if kind.is("LIST") {
                let mut folder = listed(attributes);
                let name = self.readable(name, separator);
                if folder.selectable {
                    self.look_into(&name, &mut folder)
                        .await
                        .with_context(|| format!("could not read folder {name}"))?;
                }
                snapshot.folders.insert(name, folder);
            }
        }
        // Not LSUB: Cyrus leaves out what is subscribed and has no folder.
        for response in self.command("LIST (SUBSCRIBED) \"\" \"*\"").await? {
            let [_, kind, attributes, separator, name] = response.as_slice() else { continue };
            if kind.is("LIST") && attributes.list().iter().any(|attribute| attribute.is("\\Subscribed")) {
                snapshot.subscriptions.insert(self.readable(name, separator));
            }
        }
        Ok(snapshot)
    }

    /// EXAMINE takes no `\Recent` and PEEK sets no `\Seen`.
    async fn look_into(&mut self, name: &str, folder: &mut Folder) -> Result<()> {
        for response in self.command(&format!("EXAMINE {}", self.folder_name(name))).await? {
            let words: Vec<String> = response.iter().map(Value::text).collect();
            let number = |text: &str| text.trim_end_matches(']').parse().unwrap_or_default();
            match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["*", "OK", "[UIDVALIDITY", value, ..] => folder.uid_validity = number(value),
                ["*", "OK", "[UIDNEXT", value, ..] => folder.uid_next = number(value),
                ["*", "OK", "[HIGHESTMODSEQ", value, ..] => {
                    folder.mod_seq = value.trim_end_matches(']').parse().unwrap_or_default();
                }
                ["*", value, "RECENT"] => folder.recent = number(value),
                _ => {}
            }
        }
        let mut messages = BTreeMap::new();
        let mut broken = None;
        self.each("UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])", |response| match fetched(&response) {
            Ok(Some(message)) => drop(messages.insert(message.uid, message)),
            Ok(None) => {}
            Err(error) => broken = Some(error),
        })
        .await?;
        folder.messages = messages.into_values().collect();
        broken.map_or(Ok(()), Err)
    }
}

fn listed(attributes: &Value) -> Folder {
    let attributes = attributes.list();
    let has = |name: &str| attributes.iter().any(|attribute| attribute.is(name));
    Folder {
        selectable: !has("\\Noselect") && !has("\\NonExistent"),
        special_uses: SPECIAL_USES.into_iter().filter(|name| has(name)).map(str::to_owned).collect(),
        ..Folder::default()
    }
}

/// `* 1 FETCH (…)`; an update without the message is none of ours.
fn fetched(response: &[Value]) -> Result<Option<Message>> {
    let [_, _, kind, items] = response else { return Ok(None) };
    if !kind.is("FETCH") {
        return Ok(None);
    }
    let item = |name: &str| items.list().chunks_exact(2).find(|pair| pair[0].is(name)).map(|pair| &pair[1]);
    let Some(body) = item("BODY[]") else { return Ok(None) };
    let uid = item("UID").context("a message without UID")?.text().parse()?;
    let date = item("INTERNALDATE").context("a message without date")?.text();
    let date =
        DateTime::parse_from_str(date.trim(), "%d-%b-%Y %H:%M:%S %z").with_context(|| format!("date {date:?}"))?;
    let flags = item("FLAGS").map(Value::list).unwrap_or_default().iter().map(Value::text);
    Ok(Some(Message {
        uid,
        digest: blake3::hash(body.bytes()),
        size: body.bytes().len(),
        flags: flags.map(|flag| flag.to_lowercase()).filter(|flag| flag != "\\recent").collect(),
        date: date.timestamp(),
    }))
}
