//! Commands on the messages of the open folder, many at a time.

use std::ops::Range;

use understudy_protocol::{Uid, UidSet, UidValidity};

use crate::{
    Code, FolderName, Result, Session,
    conversation::{Listener, Outcome},
    fetch::SYSTEM_FLAGS,
    line::{Line, expand, short_sets},
    response::Status,
    token::number,
};

/// The longest keyword ever written. Dovecot refuses some above 255.
const LONGEST_KEYWORD: usize = 255;

/// One command on the open folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The messages have exactly these flags.
    StoreFlags {
        uids: UidSet,
        flags: Vec<String>,
    },
    AddFlags {
        uids: UidSet,
        flags: Vec<String>,
    },
    RemoveFlags {
        uids: UidSet,
        flags: Vec<String>,
    },
    /// Marks and expunges exactly these messages. Needs UIDPLUS.
    Expunge {
        uids: UidSet,
    },
    Copy {
        uids: UidSet,
        to: FolderName,
    },
    /// Needs MOVE.
    Move {
        uids: UidSet,
        to: FolderName,
    },
}

/// Source and destination UIDs of a copy or move, in the destination's UIDVALIDITY.
pub type Copied = (UidValidity, Vec<(Uid, Uid)>);

/// The verdict on one [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// `copied` pairs the UIDs of a copy or move, when the server said them (RFC 4315).
    Ok {
        code: Option<Code>,
        copied: Option<Copied>,
    },
    /// Refused. A long set goes in several parts, all of which are sent: `copied` is what went in the others.
    No {
        code: Option<Code>,
        text: String,
        copied: Option<Copied>,
    },
    Bad {
        text: String,
    },
    /// Not sent: the server does not offer this.
    Unsupported {
        needs: &'static str,
    },
}

/// Can this keyword be written in a command? An atom, as RFC 9051 §9 `flag-keyword` wants it.
///
/// A flag that is neither this nor one of the five system flags is passed over by [`Session::run_all`].
#[must_use]
pub fn keyword_is_writable(keyword: &str) -> bool {
    (1..=LONGEST_KEYWORD).contains(&keyword.len())
        && keyword.bytes().all(|byte| {
            byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
        })
}

/// `(\Seen $Work)`: what of `flags` can be set.
fn flag_list(flags: &[String]) -> Option<String> {
    let mut writable: Vec<&str> = Vec::new();
    for flag in flags {
        let system = SYSTEM_FLAGS.iter().copied().find(|system| system.eq_ignore_ascii_case(flag));
        match system {
            Some(system) => writable.push(system),
            None if keyword_is_writable(flag) => writable.push(flag),
            None => {}
        }
    }
    (!writable.is_empty()).then(|| format!("({})", writable.join(" ")))
}

impl Session {
    /// Runs commands on the open folder, waiting only where one builds on another; all verdicts, in order.
    ///
    /// Dovecot 2.3.19 does not show a command what the one before it did while more commands are already there to be
    /// read: an UID EXPUNGE right behind its STORE says OK and expunges nothing (measured). So only STOREs of different
    /// messages share a round trip.
    ///
    /// A refusal does not stop those that follow. A command without messages, or that adds or removes no flag that can
    /// be written, is [`Tagged::Ok`] without being sent.
    pub async fn run_all(&mut self, commands: &[Command]) -> Result<Vec<Tagged>> {
        // Which command a line belongs to.
        let mut lines: Vec<(Line, usize)> = Vec::new();
        // Lines that may be sent without waiting for those before them, as ranges.
        let mut rounds: Vec<Range<usize>> = Vec::new();
        let mut stored = UidSet::default();
        let mut verdicts = Vec::with_capacity(commands.len());
        for (index, command) in commands.iter().enumerate() {
            if let Some(needs) = self.unsupported(command) {
                verdicts.push(Tagged::Unsupported { needs });
                continue;
            }
            verdicts.push(Tagged::Ok { code: None, copied: None });
            let uids = asked(command);
            let stores = command.stores();
            if !stores || uids.ranges().any(|(low, high)| stored.overlaps(low, high)) {
                rounds.push(lines.len()..lines.len());
                stored = UidSet::default();
            }
            if stores {
                uids.ranges().for_each(|(low, high)| stored.insert_range(low, high));
            }
            for part in lines_of(command) {
                let start = lines.len();
                lines.extend(part.into_iter().map(|line| (line, index)));
                match rounds.last_mut().filter(|round| stores && round.end == start) {
                    Some(round) => round.end = lines.len(),
                    None => rounds.push(start..lines.len()),
                }
            }
            if !stores {
                rounds.push(lines.len()..lines.len());
            }
        }
        // RFC 6851 §4.3: a MOVE says COPYUID in an untagged OK, before it expunges. Which MOVE is meant shows by the
        // UIDs: nothing can be moved away twice. The order would not do, as verdicts may be late.
        let mut remarks: Vec<(usize, Copied)> = Vec::new();
        let listener: Listener<'_> = &mut |_, said| {
            if let Some(arguments) = said.code("COPYUID") {
                let moved = commands.iter().enumerate().find_map(|(owner, command)| {
                    let Command::Move { uids, .. } = command else { return None };
                    Some((owner, copy_uids(arguments, uids)?))
                });
                remarks.extend(moved);
                return Ok(true);
            }
            // What our own commands do is no news.
            Ok(["EXPUNGE", "VANISHED", "FETCH", "EXISTS"].iter().any(|name| said.data(name).is_some()))
        };
        let (lines, owners): (Vec<Line>, Vec<usize>) = lines.into_iter().unzip();
        let mut outcomes = Vec::with_capacity(lines.len());
        for round in rounds.into_iter().filter(|round| !round.is_empty()) {
            outcomes.extend(self.conversation.ask_all(&lines[round], &mut *listener).await?);
        }
        for (owner, copied) in remarks {
            add_copied(&mut verdicts[owner], copied);
        }
        for (outcome, owner) in outcomes.into_iter().zip(owners) {
            add_outcome(&mut verdicts[owner], outcome, asked(&commands[owner]));
        }
        Ok(verdicts)
    }

    fn unsupported(&self, command: &Command) -> Option<&'static str> {
        let needs = match command {
            Command::Expunge { .. } => "UIDPLUS",
            Command::Move { .. } => "MOVE",
            _ => return None,
        };
        (!self.offers(needs)).then_some(needs)
    }
}

fn asked(command: &Command) -> &UidSet {
    match command {
        Command::StoreFlags { uids, .. }
        | Command::AddFlags { uids, .. }
        | Command::RemoveFlags { uids, .. }
        | Command::Expunge { uids }
        | Command::Copy { uids, .. }
        | Command::Move { uids, .. } => uids,
    }
}

impl Command {
    /// Does it only set flags?
    fn stores(&self) -> bool {
        matches!(self, Self::StoreFlags { .. } | Self::AddFlags { .. } | Self::RemoveFlags { .. })
    }
}

/// The lines of a command, in parts of which each waits for the one before.
fn lines_of(command: &Command) -> Vec<Vec<Line>> {
    let sets = short_sets(asked(command));
    let store = |what: &str, flags: &str| -> Vec<Line> {
        sets.iter().map(|set| Line::new(format!("UID STORE {set} {what}FLAGS.SILENT {flags}"))).collect()
    };
    let into = |verb: &str, to: &FolderName| -> Vec<Line> {
        sets.iter().map(|set| Line::new(format!("UID {verb} {set}")).name(to)).collect()
    };
    let one = |lines: Vec<Line>| if lines.is_empty() { Vec::new() } else { vec![lines] };
    match command {
        Command::StoreFlags { flags, .. } => one(store("", flag_list(flags).as_deref().unwrap_or("()"))),
        Command::AddFlags { flags, .. } => one(flag_list(flags).map(|flags| store("+", &flags)).unwrap_or_default()),
        Command::RemoveFlags { flags, .. } => one(flag_list(flags).map(|flags| store("-", &flags)).unwrap_or_default()),
        Command::Expunge { .. } => {
            let expunge = sets.iter().map(|set| Line::new(format!("UID EXPUNGE {set}"))).collect();
            vec![store("+", "(\\Deleted)"), expunge]
        }
        Command::Copy { to, .. } => one(into("COPY", to)),
        Command::Move { to, .. } => one(into("MOVE", to)),
    }
}

/// The first refusal stands; what was copied adds up.
fn add_outcome(verdict: &mut Tagged, outcome: Outcome, asked: &UidSet) {
    let copied = outcome.code.as_ref().filter(|code| code.name == "COPYUID");
    if let Some(copied) = copied.and_then(|code| copy_uids(code.arguments.as_bytes(), asked)) {
        add_copied(verdict, copied);
    }
    if let Tagged::Ok { code, copied } = verdict {
        match outcome.status {
            Status::Ok => *code = outcome.code,
            Status::No => {
                *verdict = Tagged::No { code: outcome.code, text: outcome.text, copied: copied.take() };
            }
            Status::Bad => *verdict = Tagged::Bad { text: outcome.text },
        }
    }
}

fn add_copied(verdict: &mut Tagged, (uid_validity, pairs): Copied) {
    if let Tagged::Ok { copied, .. } | Tagged::No { copied, .. } = verdict {
        match copied {
            Some((known, all)) if *known == uid_validity => all.extend(pairs),
            _ => *copied = Some((uid_validity, pairs)),
        }
    }
}

/// Reads `38505 304,319:320 3956:3958`: source and destination pair up in the order written (RFC 4315 §3). `None` when
/// it names other messages than those asked for.
fn copy_uids(arguments: &[u8], asked: &UidSet) -> Option<Copied> {
    let mut words = arguments.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let uid_validity = u32::try_from(number(words.next()?)?).ok()?;
    let most = usize::try_from(asked.len()).unwrap_or(usize::MAX);
    let (from, to) = (expand(words.next()?, most)?, expand(words.next()?, most)?);
    (from.len() == to.len() && from.iter().all(|&uid| asked.contains(uid)))
        .then(|| (UidValidity(uid_validity), from.into_iter().zip(to).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_atoms() {
        for good in ["$Forwarded", "NonJunk", "a[b", "x"] {
            assert!(keyword_is_writable(good), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", "a b", "a\r\nb", "a]", "\\Seen", "é", "a\"", "(", "{5}", "%", "*", "\x7f", &long] {
            assert!(!keyword_is_writable(bad), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_left_out() {
        let flags = ["\\seen", "\\Recent", "a b", "Work"].map(str::to_owned);
        assert_eq!(flag_list(&flags).as_deref(), Some("(\\Seen Work)"));
        assert_eq!(flag_list(&flags[1..3]), None);
    }

    #[test]
    fn copied_uids_pair_up_or_are_unknown() {
        let asked = UidSet::range(Uid(1), Uid(400));
        let pairs = |text: &str| copy_uids(text.as_bytes(), &asked).map(|(validity, pairs)| (validity.0, pairs));
        let expected = vec![(Uid(304), Uid(7)), (Uid(319), Uid(8)), (Uid(320), Uid(9))];
        assert_eq!(pairs("5 304,319:320 7:9"), Some((5, expected)));
        assert_eq!(pairs("5 1:2 7"), None);
        assert_eq!(pairs("5 1:4294967295 1:4294967295"), None);
    }
}
