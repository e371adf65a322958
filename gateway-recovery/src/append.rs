//! Puts messages into one standby folder: batches, all or nothing, halved around what the standby refuses.
//!
//! Keeps true: one batch in flight; every message ends with a standby UID or a reason; a refused message stops no other.

use std::{io, ops::Range};

use understudy_failpoint as failpoint;
use understudy_imap_session::{Append, Appended, Command, ContentSource, Error, FolderName};
use understudy_protocol::{AddedMessage, Digest, Uid, UidSet, UidValidity};
use understudy_replication::inventory::{Digests, instant};

use crate::{numbering::Numbering, standby::Standby, store::Contents};

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
    /// Why UIDs could not be raised any more, where that was so.
    pub(crate) unraised: Option<String>,
}

/// Appends `messages`, whose contents are `contents` in the same order; with `numbering`, under their own UIDs.
pub(crate) async fn append(
    standby: &mut Standby,
    name: &FolderName,
    messages: &[&AddedMessage],
    contents: &mut Contents,
    mut numbering: Option<&mut Numbering<'_>>,
) -> anyhow::Result<Done> {
    let mut done = Done::default();
    // Ranges still to do, the next one last.
    let at_once = if standby.session().capabilities().has("MULTIAPPEND") { messages.len() } else { 1 };
    let after_gap = |index: usize| index == 0 || messages[index].uid.0 != messages[index - 1].uid.0.wrapping_add(1);
    let numbered = numbering.is_some();
    let mut ranges = batches(contents, at_once, |index| numbered && after_gap(index)).await.map_err(Error::Source)?;
    let mut created = false;
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        if let Some(numbers) = numbering.as_deref_mut() {
            done.unraised = numbers.reach(messages[range.start].uid).await?;
            if done.unraised.is_some() {
                numbering = None;
            }
        }
        if numbering.is_some() && contents.last_byte(range.start).await.map_err(Error::Source)? == Some(b'\r') {
            // What offers a management interface is a Dovecot: the exact copy must be the first, or its UID is gone.
            if let Some(appended) = append_padded(standby, name, messages[range.start], contents, range.start).await? {
                numbering.iter_mut().for_each(|numbers| numbers.given(appended.uids[0]));
                done.uid_validity = Some(appended.uid_validity);
                done.outcomes.push(Outcome::Stored(appended.uids[0]));
                continue;
            }
        }
        let batch: Vec<Append> = messages[range.clone()].iter().map(|message| line(message)).collect();
        contents.start_at(range.start);
        failpoint::here("append.ready");
        match standby.session().append_batch(name, &batch, contents).await {
            Ok(appended) => {
                failpoint::here("append.done");
                if appended.uids.len() != range.len() {
                    return Err(Error::Protocol("the standby did not say which UIDs the messages got").into());
                }
                if let (Some(numbers), Some(&last)) = (numbering.as_deref_mut(), appended.uids.last()) {
                    numbers.given(last);
                }
                done.uid_validity = Some(appended.uid_validity);
                done.outcomes.extend(appended.uids.into_iter().map(Outcome::Stored));
                check_odd(standby, name, messages, contents, range.clone(), &mut done).await?;
                check_dates(standby, name, messages, range, &mut done).await?;
            }
            Err(error) if missing_folder(&error) && !created => {
                created = true;
                match standby.session().create(name, &[]).await {
                    Ok(()) => ranges.push(range),
                    // No folder, no messages; other folders go on.
                    Err(error @ Error::Refused { .. }) => {
                        let reason = no_folder(&error);
                        done.outcomes.resize(messages.len(), Outcome::Refused(reason));
                        return Ok(done);
                    }
                    Err(error) => return Err(error.into()),
                }
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
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Ranges of messages that go into one command each, the first one last. One that ends in CR goes alone, so that it can be
/// mended before the next takes its place in the order.
async fn batches(
    contents: &mut Contents,
    at_once: usize,
    begins: impl Fn(usize) -> bool,
) -> io::Result<Vec<Range<usize>>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut alone = true;
    for index in 0..contents.len() {
        let ends_in_cr = contents.last_byte(index).await? == Some(b'\r');
        match batches.last_mut() {
            Some(batch) if !alone && !ends_in_cr && batch.len() < at_once && !begins(index) => batch.end = index + 1,
            _ => batches.push(index..index + 1),
        }
        alone = ends_in_cr;
    }
    batches.reverse();
    Ok(batches)
}

fn line(message: &AddedMessage) -> Append {
    Append { flags: message.flags.clone(), internal_date: message.internal_date.clone(), size: message.content.size }
}

fn missing_folder(error: &Error) -> bool {
    matches!(error.code(), Some("TRYCREATE" | "NONEXISTENT"))
}

/// Why a folder's messages are set aside.
pub(crate) fn no_folder(error: &Error) -> String {
    let said = error.server_text().unwrap_or_default();
    format!(
        "the standby takes no folder of this name ({said}); rename the folder on the primary, or change what the standby allows"
    )
}

/// What the standby said, for the list of messages set aside.
pub(crate) fn reason(error: &Error) -> String {
    match error.server_text().filter(|text| !text.is_empty()) {
        Some(text) => format!("the standby refused it: {text}"),
        None => error.to_string(),
    }
}

/// Asks back the dates that servers are known not to keep (Dovecot makes "now" of one in the future), and compares.
async fn check_dates(
    standby: &mut Standby,
    name: &FolderName,
    messages: &[&AddedMessage],
    batch: Range<usize>,
    done: &mut Done,
) -> Result<(), Error> {
    let kept = 1..chrono::Utc::now().timestamp();
    let odd: Vec<(usize, Uid)> = batch
        .filter_map(|index| match done.outcomes.get(index) {
            Some(Outcome::Stored(uid))
                if !instant(&messages[index].internal_date).is_some_and(|at| kept.contains(&at)) =>
            {
                Some((index, *uid))
            }
            _ => None,
        })
        .collect();
    if odd.is_empty() {
        return Ok(());
    }
    standby.select(name).await?;
    let uids: UidSet = odd.iter().map(|(_, uid)| *uid).collect();
    let rows = standby.session().rows(&uids).await?;
    for (index, uid) in odd {
        let Some(row) = rows.iter().find(|row| row.uid == uid) else { continue };
        if instant(&row.internal_date) != instant(&messages[index].internal_date) {
            metrics::counter!("understudy_apply_errors_total", "reason" => "altered").increment(1);
            let reason = format!(
                "the standby cannot keep the date {}: it says {}",
                messages[index].internal_date.trim(),
                row.internal_date.trim()
            );
            done.outcomes[index] = Outcome::Altered(uid, reason);
        }
    }
    Ok(())
}

/// Fetches back what had bytes that servers are known to alter, and compares.
async fn check_odd(
    standby: &mut Standby,
    name: &FolderName,
    messages: &[&AddedMessage],
    contents: &mut Contents,
    batch: Range<usize>,
    done: &mut Done,
) -> Result<(), Error> {
    let odd: Vec<(usize, Uid)> = batch
        .filter_map(|index| match done.outcomes.get(index) {
            Some(Outcome::Stored(uid)) if contents.is_odd(index) => Some((index, *uid)),
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
        if digest == Some(messages[index].content.digest) {
            continue;
        }
        if contents.last_byte(index).await.map_err(Error::Source)? == Some(b'\r')
            && let Some(exact) = append_padded(standby, name, messages[index], contents, index).await?
        {
            expunge(standby, uid).await?;
            done.outcomes[index] = Outcome::Stored(exact.uids[0]);
        } else {
            metrics::counter!("understudy_apply_errors_total", "reason" => "altered").increment(1);
            let reason = "the standby stored other bytes than it was given: it changes NUL, line ends that are not CR LF, \
                          or octets above 127 in headers (on Cyrus, `munge8bit: no` in imapd.conf stops that)";
            done.outcomes[index] = Outcome::Altered(uid, reason.to_owned());
        }
    }
    Ok(())
}

/// Dovecot's APPEND drops a CR at the very end of a message, so one that ends in CR gets one more to lose. Answers where
/// the copy is if that made it exact; otherwise nothing is left of it.
async fn append_padded(
    standby: &mut Standby,
    name: &FolderName,
    message: &AddedMessage,
    contents: &mut Contents,
    index: usize,
) -> Result<Option<Appended>, Error> {
    contents.start_at(index);
    let batch = [Append { size: message.content.size + 1, ..line(message) }];
    let mut padded = Padded { contents, size: message.content.size };
    let appended = match standby.session().append_batch(name, &batch, &mut padded).await {
        Ok(appended) => appended,
        Err(Error::Refused { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(&uid) = appended.uids.first() else { return Ok(None) };
    failpoint::here("append.padded");
    standby.select(name).await?;
    let mut stored = Digests::default();
    standby.session().bodies(&UidSet::range(uid, uid), &mut stored).await?;
    if stored.of(uid) == Some(message.content.digest) {
        return Ok(Some(appended));
    }
    expunge(standby, uid).await?;
    Ok(None)
}

async fn expunge(standby: &mut Standby, uid: Uid) -> Result<(), Error> {
    standby.session().run_all(&[Command::Expunge { uids: UidSet::range(uid, uid) }]).await?;
    failpoint::here("append.mended");
    Ok(())
}

/// A content with one CR more.
struct Padded<'a> {
    contents: &'a mut Contents,
    size: u64,
}

impl ContentSource for Padded<'_> {
    async fn read(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset < self.size {
            return self.contents.read(index, offset, buffer).await;
        }
        match buffer.first_mut() {
            Some(first) => {
                *first = b'\r';
                Ok(1)
            }
            None => Ok(0),
        }
    }
}
