//! Reads rows and bodies of the open folder, around messages that the server cannot give.
//!
//! In: the UIDs wanted. Out: what could be read; for each other message, why not.
//! Keeps true: a message counts as unreadable only when it failed alone and the server let us in again each time, so an
//! outage or a full disk is an error as ever. Dovecot ends the connection over a message it cannot read: hence the
//! opening again.

use understudy_imap_session::{Error, FolderName, Row};
use understudy_protocol::{Uid, UidSet, UidValidity};

use crate::{spool::Spooling, watch::Reader};

/// How often a message must fail alone before it counts as unreadable.
const ATTEMPTS: usize = 2;

/// The folder that is open, to open it again.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) name: FolderName,
    pub(crate) uid_validity: UidValidity,
}

/// A message that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) uid: Uid,
    pub(crate) reason: String,
}

impl Unread {
    fn new(uid: Uid, error: &Error) -> Self {
        let said = error.server_text().filter(|text| !text.is_empty()).map(|text| format!("; it said: {text}"));
        Self { uid, reason: format!("the primary could not give it: {error}{}", said.unwrap_or_default()) }
    }
}

/// The rows of these messages, ascending by UID.
pub(crate) async fn rows(reader: &mut Reader, open: &Open, uids: &UidSet) -> Result<(Vec<Row>, Vec<Unread>), Error> {
    let (mut rows, mut unread) = (Vec::new(), Vec::new());
    // The next part last.
    let mut parts = vec![uids.iter().collect::<Vec<Uid>>()];
    while let Some(part) = parts.pop() {
        let error = match reader.session().await?.rows(&part.iter().copied().collect()).await {
            Ok(read) => {
                rows.extend(read);
                continue;
            }
            Err(error) if may_be_the_message(&error) => error,
            Err(error) => return Err(error),
        };
        open_again(reader, open).await?;
        match part.as_slice() {
            [] => {}
            [uid] => unread.push(Unread::new(*uid, &error)),
            several => {
                let (first, second) = several.split_at(several.len() / 2);
                parts.extend([second.to_vec(), first.to_vec()]);
            }
        }
    }
    Ok((rows, unread))
}

/// Fetches the bodies of these messages.
pub(crate) async fn bodies(
    reader: &mut Reader,
    open: &Open,
    uids: &UidSet,
    out: &mut Spooling,
) -> Result<Vec<Unread>, Error> {
    let mut unread = Vec::new();
    let mut left = uids.clone();
    while !left.is_empty() {
        match reader.session().await?.bodies(&left, out).await {
            Ok(()) => break,
            Err(error) if may_be_the_message(&error) => {}
            Err(error) => return Err(error),
        }
        out.give_up_current().map_err(Error::Sink)?;
        left = left.iter().filter(|&uid| !out.has_arrived(uid)).collect();
        // Servers answer in order: the first that did not come is the one it failed at.
        let Some(suspect) = left.iter().next() else { break };
        left = left.iter().filter(|&uid| uid != suspect).collect();
        unread.extend(body(reader, open, suspect, out).await?);
        open_again(reader, open).await?;
    }
    Ok(unread)
}

/// Fetches one body alone.
async fn body(reader: &mut Reader, open: &Open, uid: Uid, out: &mut Spooling) -> Result<Option<Unread>, Error> {
    let mut attempt = 0;
    loop {
        open_again(reader, open).await?;
        match reader.session().await?.bodies(&UidSet::range(uid, uid), out).await {
            Ok(()) => return Ok(None),
            Err(error) if may_be_the_message(&error) => {
                out.give_up_current().map_err(Error::Sink)?;
                attempt += 1;
                if attempt == ATTEMPTS {
                    return Ok(Some(Unread::new(uid, &error)));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// A fresh session with the same folder open.
async fn open_again(reader: &mut Reader, open: &Open) -> Result<(), Error> {
    reader.renew();
    match reader.session().await?.examine(&open.name).await? {
        Some(selected) if selected.uid_validity == open.uid_validity => Ok(()),
        // Another folder by now: the next look says which.
        _ => Err(Error::Interrupted),
    }
}

/// May the server have failed because of one message?
fn may_be_the_message(error: &Error) -> bool {
    match error {
        // RFC 5530 §3: it says itself that this passes, or that it is no message's fault.
        Error::Refused { .. } => {
            !matches!(error.code(), Some("UNAVAILABLE" | "INUSE" | "LIMIT" | "NOPERM" | "EXPUNGEISSUED"))
        }
        Error::Bad { .. }
        | Error::Protocol(_)
        | Error::Timeout
        | Error::Closed { .. }
        | Error::Broken(_)
        | Error::Interrupted => true,
        _ => false,
    }
}
