//! What changed in the open folder since a position.

use std::collections::BTreeMap;

use understudy_protocol::{ModSeq, Uid, UidSet};

use crate::{
    Error, Result, Session,
    fetch::Attributes,
    line::{Line, read_ranges},
    token::{Token, number},
};

/// What happened to known messages since a MODSEQ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ascending by UID; the flags a message has now.
    pub flags: Vec<(Uid, Vec<String>)>,
    /// Only with QRESYNC. May name UIDs that never were (RFC 7162 §3.2.10).
    pub vanished: UidSet,
}

/// A list of UIDs is short on the line (`1:4294967295`) and long in memory: no server has folders that large.
const MOST_MESSAGES: u64 = 1 << 25;

impl Session {
    /// What happened since `since` to messages whose UIDs are below `below`. Needs CONDSTORE.
    ///
    /// With `since` 0, which is no MODSEQ, the flags of all these messages, and nothing vanished.
    pub async fn changes(&mut self, below: Uid, since: ModSeq) -> Result<Changes> {
        if !self.offers("CONDSTORE") && !self.offers("QRESYNC") {
            return Err(Error::Unsupported("CONDSTORE"));
        }
        if below.0 <= 1 {
            return Ok(Changes::default());
        }
        let last = below.0 - 1;
        let vanished = if self.qresync { " VANISHED" } else { "" };
        let line = match since.0 {
            0 => format!("UID FETCH 1:{last} (UID FLAGS)"),
            since => format!("UID FETCH 1:{last} (UID FLAGS) (CHANGEDSINCE {since}{vanished})"),
        };
        let mut flags = BTreeMap::new();
        let mut gone = UidSet::default();
        let outcome = self
            .conversation
            .ask(Line::new(line), &mut |_, said| {
                if let Some(mut arguments) = said.data("FETCH") {
                    let fetched = Attributes::read(&mut arguments)?;
                    return Ok(match fetched {
                        Attributes { uid: Some(uid), flags: Some(now), .. } if uid < below => {
                            flags.insert(uid, now);
                            true
                        }
                        _ => false,
                    });
                }
                let Some(mut arguments) = said.data("VANISHED") else { return Ok(false) };
                if !arguments.open() {
                    // Expunged just now: the next look reports it, as (EARLIER).
                    return Ok(false);
                }
                while arguments.next().is_some_and(|token| token != Token::Close) {}
                read_ranges(arguments.rest().trim_ascii(), |one, other| {
                    // No server need keep to the UIDs asked for.
                    let (low, high) = (one.min(other), one.max(other));
                    if low < below {
                        gone.insert_range(low, high.min(Uid(last)));
                    }
                })
                .ok_or(Error::Protocol("it named expunged messages in a way that could not be read"))?;
                Ok(true)
            })
            .await?;
        outcome.ok("FETCH")?;
        Ok(Changes { flags: flags.into_iter().collect(), vanished: gone })
    }

    /// The UIDs of the open folder's messages, from `from` on.
    pub async fn uids(&mut self, from: Uid) -> Result<UidSet> {
        let from = from.max(Uid(1));
        let extended = self.offers("ESEARCH");
        let line = Line::new(if extended {
            format!("UID SEARCH RETURN (ALL) UID {from}:*")
        } else {
            format!("UID SEARCH UID {from}:*")
        });
        const UNREADABLE: Error = Error::Protocol("its list of UIDs could not be read");
        let mut uids = UidSet::default();
        let mut answered = false;
        let outcome = self
            .conversation
            .ask(line, &mut |_, said| {
                // `5:*` names the last message even when its UID is below 5.
                let mut take = |low: Uid, high: Uid| {
                    let (low, high) = (low.min(high), low.max(high));
                    if high >= from {
                        uids.insert_range(low.max(from), high);
                    }
                };
                if let Some(mut arguments) = said.data("ESEARCH") {
                    while let Some(token) = arguments.next() {
                        match token {
                            // (TAG "u5"), which is ours: nothing else is being searched.
                            Token::Open => while arguments.next().is_some_and(|token| token != Token::Close) {},
                            Token::Atom(item) if item.eq_ignore_ascii_case(b"ALL") => {
                                read_ranges(arguments.atom().ok_or(UNREADABLE)?, &mut take).ok_or(UNREADABLE)?;
                            }
                            _ => {}
                        }
                    }
                } else if let Some(arguments) = said.data("SEARCH") {
                    for word in arguments.rest().split(|&byte| byte == b' ').filter(|word| !word.is_empty()) {
                        if word.starts_with(b"(") {
                            break;
                        }
                        let uid = number(word).and_then(|uid| u32::try_from(uid).ok()).ok_or(UNREADABLE)?;
                        take(Uid(uid), Uid(uid));
                    }
                } else {
                    return Ok(false);
                }
                answered = true;
                Ok(true)
            })
            .await?;
        outcome.ok("SEARCH")?;
        if uids.len() > MOST_MESSAGES {
            return Err(Error::Protocol("it listed more messages than a folder holds"));
        }
        // Some old servers say nothing when there is nothing; then the folder must have been empty.
        if !answered && self.opened.as_ref().is_none_or(|opened| opened.exists > 0) {
            return Err(Error::Protocol("it did not answer a search"));
        }
        Ok(uids)
    }
}
