//! Puts messages into one standby folder: batches, all or nothing, halved around what the standby refuses.
//!
//! Keeps true: one batch in flight; every message ends with a standby UID or a reason; a refused message stops no other.

use std::ops::Range;

use understudy_imap_session::{Append, Error, FolderName};
use understudy_protocol::{AddedMessage, Digest, Uid, UidSet, UidValidity};
use understudy_replication::inventory::Digests;

use crate::{standby::Standby, store::Contents};

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored(Uid),
    /// The standby holds it, with other bytes.
    Altered(Uid, String),
    Refused(String),
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// One for each message, in order.
    pub(crate) outcomes: Vec<Outcome>,
    /// The folder's UIDVALIDITY, once something was stored.
    pub(crate) uid_validity: Option<UidValidity>,
}

/// Appends `messages`, whose contents are `contents` in the same order.
pub(crate) async fn append(
    standby: &mut Standby,
    name: &FolderName,
    messages: &[&AddedMessage],
    contents: &mut Contents,
) -> Result<Done, Error> {
    let mut done = Done::default();
    // Ranges still to do, the next one last.
    let at_once = if standby.session().capabilities().has("MULTIAPPEND") { messages.len() } else { 1 };
    let mut ranges: Vec<Range<usize>> = (0..messages.len())
        .step_by(at_once.max(1))
        .rev()
        .map(|start| start..(start + at_once).min(messages.len()))
        .collect();
    let mut created = false;
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        let batch: Vec<Append> = messages[range.clone()].iter().map(|message| line(message)).collect();
        contents.start_at(range.start);
        match standby.session().append_batch(name, &batch, contents).await {
            Ok(appended) => {
                if appended.uids.len() != range.len() {
                    return Err(Error::Protocol("the standby did not say which UIDs the messages got"));
                }
                done.uid_validity = Some(appended.uid_validity);
                done.outcomes.extend(appended.uids.into_iter().map(Outcome::Stored));
            }
            Err(error) if missing_folder(&error) && !created => {
                created = true;
                standby.session().create(name, &[]).await?;
                ranges.push(range);
            }
            Err(Error::Refused { .. }) if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
            Err(error @ Error::Refused { .. }) => {
                metrics::counter!("understudy_apply_errors_total", "reason" => "refused").increment(1);
                done.outcomes.push(Outcome::Refused(reason(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    check_odd(standby, name, messages, contents, &mut done).await?;
    Ok(done)
}

fn line(message: &AddedMessage) -> Append {
    Append { flags: message.flags.clone(), internal_date: message.internal_date.clone(), size: message.content.size }
}

fn missing_folder(error: &Error) -> bool {
    matches!(error.code(), Some("TRYCREATE" | "NONEXISTENT"))
}

/// What the standby said, for the list of messages set aside.
pub(crate) fn reason(error: &Error) -> String {
    match error.server_text().filter(|text| !text.is_empty()) {
        Some(text) => format!("the standby refused it: {text}"),
        None => error.to_string(),
    }
}

/// Fetches back what had bytes that servers are known to alter, and compares.
async fn check_odd(
    standby: &mut Standby,
    name: &FolderName,
    messages: &[&AddedMessage],
    contents: &Contents,
    done: &mut Done,
) -> Result<(), Error> {
    let odd: Vec<(usize, Uid)> = done
        .outcomes
        .iter()
        .enumerate()
        .filter_map(|(index, outcome)| match outcome {
            Outcome::Stored(uid) if contents.is_odd(index) => Some((index, *uid)),
            _ => None,
        })
        .collect();
    if odd.is_empty() {
        return Ok(());
    }
    standby.select(name).await?;
    let uids: UidSet = odd.iter().map(|(_, uid)| *uid).collect();
    let mut stored = Digests::default();
    standby.session().bodies(&uids, &mut stored).await?;
    for (index, uid) in odd {
        let digest: Option<Digest> = stored.of(uid);
        if digest != Some(messages[index].content.digest) {
            metrics::counter!("understudy_apply_errors_total", "reason" => "altered").increment(1);
            let reason = "the standby stored other bytes than it was given: it changes NUL or line ends that are not \
                          CR LF";
            done.outcomes[index] = Outcome::Altered(uid, reason.to_owned());
        }
    }
    Ok(())
}
