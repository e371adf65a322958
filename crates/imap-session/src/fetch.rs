//! Messages of the open folder: rows of a listing, flags, bodies.
//!
//! Keeps true: a row is whole or an error; a body is delivered as the octets the server sent, in pieces, and never held.

use std::{collections::BTreeMap, io};

use understudy_protocol::{Uid, UidSet};

use crate::{
    Error, Result, Session,
    conversation::{Heard, Listener, Outcome},
    framer::{Bodies, Frame},
    line::{Line, short_sets},
    response::{Response, Status, Untagged, parse},
    token::{Token, Tokens},
};

/// The longest piece of a body. 64 KiB.
const LONGEST_CHUNK: usize = 64 << 10;
/// A body whose UID comes after it is held up to this. 64 MiB.
const LONGEST_HELD: u64 = 64 << 20;
/// Fetches of bodies sent and not yet answered, at most.
const BODY_WINDOW: usize = 4;

/// One message as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub uid: Uid,
    /// Sorted, each once, without `\Recent`; system flags in their usual spelling.
    pub flags: Vec<String>,
    /// INTERNALDATE as the server wrote it.
    pub internal_date: String,
    pub size: u64,
    /// EMAILID (RFC 8474) or Dovecot's X-GUID.
    pub identity: Option<String>,
}

/// Takes in bodies as they stream by.
pub trait BodySink {
    /// A body of `size` octets begins.
    fn start(&mut self, uid: Uid, size: u64) -> io::Result<()>;
    /// The next octets, at most 64 KiB.
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The body is whole.
    fn end(&mut self) -> io::Result<()>;
    /// This message was asked for and has no body any more.
    fn missing(&mut self, uid: Uid);
}

/// What one FETCH response says of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) uid: Option<Uid>,
    pub(crate) flags: Option<Vec<String>>,
    internal_date: Option<String>,
    size: Option<u64>,
    identity: Option<String>,
    /// A body that did not stream: quoted, or NIL.
    body: Option<Option<Vec<u8>>>,
}

const UNREADABLE: Error = Error::Protocol("its answer to FETCH could not be read");

impl Attributes {
    /// Reads `(UID 5 FLAGS (\Seen) …)`.
    pub(crate) fn read(arguments: &mut Tokens<'_>) -> Result<Self> {
        let mut attributes = Self::default();
        if !arguments.open() {
            return Err(UNREADABLE);
        }
        attributes.read_rest(arguments).ok_or(UNREADABLE)?;
        Ok(attributes)
    }

    /// Reads on until the closing parenthesis.
    fn read_rest(&mut self, arguments: &mut Tokens<'_>) -> Option<()> {
        loop {
            let item = match arguments.next()? {
                Token::Close => return Some(()),
                Token::Atom(item) => item,
                Token::Open | Token::Text(_) => return None,
            };
            if item.eq_ignore_ascii_case(b"UID") {
                self.uid = Some(Uid(arguments.number32()?)).filter(|uid| uid.0 > 0);
            } else if item.eq_ignore_ascii_case(b"FLAGS") {
                self.flags = Some(read_flags(arguments)?);
            } else if item.eq_ignore_ascii_case(b"INTERNALDATE") {
                self.internal_date = Some(text(arguments.string()?)?);
            } else if item.eq_ignore_ascii_case(b"RFC822.SIZE") {
                self.size = Some(arguments.number()?);
            } else if item.eq_ignore_ascii_case(b"X-GUID") || item.eq_ignore_ascii_case(b"EMAILID") {
                let bracketed = arguments.open();
                self.identity = arguments.nil_or_string()?.and_then(text);
                if bracketed {
                    arguments.next()?;
                }
            } else if item.eq_ignore_ascii_case(b"BODY[]") {
                self.body = Some(arguments.nil_or_string()?.map(std::borrow::Cow::into_owned));
            } else {
                arguments.skip_value()?;
            }
        }
    }

    fn merge(&mut self, later: Self) {
        self.flags = later.flags.or(self.flags.take());
        self.internal_date = later.internal_date.or(self.internal_date.take());
        self.size = later.size.or(self.size);
        self.identity = later.identity.or(self.identity.take());
    }

    /// The row, when all of it is there.
    fn row(&mut self) -> Option<Row> {
        if self.uid.is_none() || self.flags.is_none() || self.internal_date.is_none() || self.size.is_none() {
            return None;
        }
        Some(Row {
            uid: self.uid?,
            flags: self.flags.take()?,
            internal_date: self.internal_date.take()?,
            size: self.size?,
            identity: self.identity.take(),
        })
    }
}

fn text(bytes: std::borrow::Cow<'_, [u8]>) -> Option<String> {
    String::from_utf8(bytes.into_owned()).ok()
}

/// Sorted, each once, without `\Recent`, which is nobody's to keep.
fn read_flags(arguments: &mut Tokens<'_>) -> Option<Vec<String>> {
    if !arguments.open() {
        return None;
    }
    let mut flags = Vec::new();
    loop {
        match arguments.next()? {
            Token::Close => break,
            Token::Atom(flag) if flag.eq_ignore_ascii_case(b"\\Recent") => {}
            Token::Atom(flag) => flags.push(canonical_flag(flag)),
            Token::Text(flag) => flags.push(canonical_flag(&flag)),
            Token::Open => return None,
        }
    }
    flags.sort_unstable();
    flags.dedup();
    Some(flags)
}

/// The system flags that a client may set (RFC 9051 §2.3.2).
pub(crate) const SYSTEM_FLAGS: [&str; 5] = ["\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen"];

fn canonical_flag(flag: &[u8]) -> String {
    let system = SYSTEM_FLAGS.iter().find(|system| system.as_bytes().eq_ignore_ascii_case(flag));
    system.map_or_else(|| String::from_utf8_lossy(flag).into_owned(), |&system| system.to_owned())
}

impl Session {
    /// The rows of these messages, ascending by UID. One that is gone has none.
    pub async fn rows(&mut self, uids: &UidSet) -> Result<Vec<Row>> {
        let identity = if self.offers("OBJECTID") {
            " EMAILID"
        } else if self.has_guids().await? {
            " X-GUID"
        } else {
            ""
        };
        let items = format!("(UID FLAGS INTERNALDATE RFC822.SIZE{identity})");
        let mut rows: Vec<Row> = Vec::new();
        // What is not a whole row: a push of new flags, or a server that tells of one message in several responses.
        let mut parts: BTreeMap<Uid, Attributes> = BTreeMap::new();
        self.fetch(uids, &items, &mut |mut fetched| {
            let Some(uid) = fetched.uid.filter(|&uid| uids.contains(uid)) else { return false };
            if let Some(row) = fetched.row() {
                rows.push(row);
                return true;
            }
            let part = parts.entry(uid).or_insert_with(|| Attributes { uid: Some(uid), ..Attributes::default() });
            part.merge(fetched);
            if let Some(row) = part.row() {
                rows.push(row);
                parts.remove(&uid);
            }
            false
        })
        .await?;
        sort_by_uid(&mut rows, |row| row.uid);
        let lacks = |part: &Attributes| part.internal_date.is_some() || part.size.is_some();
        if parts.iter().any(|(uid, part)| lacks(part) && rows.binary_search_by_key(uid, |row| row.uid).is_err()) {
            return Err(Error::Protocol("it told only half of a message"));
        }
        Ok(rows)
    }

    /// The flags of these messages, ascending by UID. One that is gone has none.
    pub async fn flags(&mut self, uids: &UidSet) -> Result<Vec<(Uid, Vec<String>)>> {
        let mut flags = Vec::new();
        self.fetch(uids, "(UID FLAGS)", &mut |fetched| match fetched {
            Attributes { uid: Some(uid), flags: Some(now), .. } if uids.contains(uid) => {
                flags.push((uid, now));
                true
            }
            _ => false,
        })
        .await?;
        sort_by_uid(&mut flags, |&(uid, _)| uid);
        Ok(flags)
    }

    async fn fetch(
        &mut self,
        uids: &UidSet,
        items: &str,
        on: &mut (dyn FnMut(Attributes) -> bool + Send),
    ) -> Result<()> {
        let lines: Vec<Line> = fetches(uids, items).into_iter().map(Line::new).collect();
        let listener: Listener<'_> = &mut |_, said| match said.data("FETCH") {
            Some(mut arguments) => Ok(on(Attributes::read(&mut arguments)?)),
            None => Ok(false),
        };
        for outcome in self.conversation.ask_all(&lines, listener).await? {
            outcome.ok("FETCH")?;
        }
        Ok(())
    }

    /// Streams the bodies of these messages into `sink`, in the server's order. After the last one, tells it of those
    /// that have none: the server answered NIL, or not at all.
    ///
    /// A body that comes before its UID (none is known to do that) is held, up to 64 MiB.
    pub async fn bodies<S: BodySink + Send>(&mut self, uids: &UidSet, sink: &mut S) -> Result<()> {
        let lines = fetches(uids, "(UID BODY.PEEK[])");
        self.conversation.begin()?;
        let mut answered = UidSet::default();
        let mut lines = lines.into_iter();
        let mut waiting: Vec<u64> = Vec::with_capacity(BODY_WINDOW);
        let mut refusal = None;
        loop {
            for line in lines.by_ref().take(BODY_WINDOW - waiting.len()) {
                let tag = self.conversation.next_tag();
                self.conversation.queue(format!("u{tag} {line}\r\n").as_bytes());
                waiting.push(tag);
            }
            if waiting.is_empty() {
                break;
            }
            self.conversation.flush().await?;
            let outcome = self.bodies_until(&mut waiting, uids, &mut answered, sink).await?;
            if outcome.status != Status::Ok && refusal.is_none() {
                refusal = Some(outcome);
            }
        }
        self.conversation.finish();
        if let Some(refusal) = refusal {
            refusal.ok("FETCH")?;
        }
        for (low, high) in without(uids, &answered).ranges() {
            (low.0..=high.0).for_each(|uid| sink.missing(Uid(uid)));
        }
        Ok(())
    }

    /// Streams bodies until the verdict on one of the commands `waiting`, which then waits no more.
    async fn bodies_until<S: BodySink + Send>(
        &mut self,
        waiting: &mut Vec<u64>,
        asked: &UidSet,
        answered: &mut UidSet,
        sink: &mut S,
    ) -> Result<Outcome> {
        loop {
            match self.conversation.frame(Bodies::Streamed).await? {
                Frame::Partial => {}
                Frame::Body { prefix, size } => self.body(prefix, size, asked, answered, sink).await?,
                Frame::Whole { end, next } => {
                    let heard = self.conversation.heard(end, 0, &mut |_, said| {
                        let Some(mut arguments) = said.data("FETCH") else { return Ok(false) };
                        match Attributes::read(&mut arguments)? {
                            Attributes { uid: Some(uid), body: Some(Some(body)), .. } if asked.contains(uid) => {
                                deliver(sink, uid, &body)?;
                                answered.insert(uid);
                                Ok(true)
                            }
                            // NIL: expunged while we asked (RFC 2180 §4.1.3). Reported at the end.
                            Attributes { body: Some(None), .. } => Ok(true),
                            _ => Ok(false),
                        }
                    })?;
                    self.conversation.framer().consume(next);
                    match heard {
                        Heard::Verdict(tag, outcome) => {
                            let place = waiting.iter().position(|&sent| sent == tag);
                            let place = place.ok_or(Error::Protocol("it answered a command that was not waiting"))?;
                            waiting.remove(place);
                            return Ok(outcome);
                        }
                        Heard::Continue | Heard::Other => {}
                    }
                }
            }
        }
    }

    /// Streams one body, whose announcement ends at `prefix`, and reads the rest of its response.
    async fn body<S: BodySink + Send>(
        &mut self,
        prefix: usize,
        size: u64,
        asked: &UidSet,
        answered: &mut UidSet,
        sink: &mut S,
    ) -> Result<()> {
        let known = announced_uid(&self.conversation.framer().bytes()[..prefix])?;
        self.conversation.framer().consume(prefix);
        // A body nobody asked for has to be read all the same.
        let wanted = known.filter(|&uid| asked.contains(uid) && !answered.contains(uid));
        let mut held = Vec::new();
        if known.is_none() && size > LONGEST_HELD {
            return Err(Error::Protocol("it sent a long body before its UID"));
        }
        if let Some(uid) = wanted {
            sink.start(uid, size).map_err(Error::Sink)?;
        }
        let mut left = size;
        while left > 0 {
            if self.conversation.framer().bytes().is_empty() {
                self.conversation.fill().await?;
            }
            let framer = self.conversation.framer();
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(LONGEST_CHUNK).min(framer.bytes().len());
            let chunk = &framer.bytes()[..most];
            if wanted.is_some() {
                sink.chunk(chunk).map_err(Error::Sink)?;
            } else if known.is_none() {
                held.extend_from_slice(chunk);
            }
            framer.consume(most);
            left -= most as u64;
        }
        let (end, next) = loop {
            match self.conversation.frame(Bodies::Passed).await? {
                Frame::Whole { end, next } => break (end, next),
                Frame::Partial | Frame::Body { .. } => {}
            }
        };
        let mut rest = Attributes::default();
        let read = rest.read_rest(&mut Tokens::new(&self.conversation.framer().bytes()[..end]));
        read.ok_or(UNREADABLE)?;
        self.conversation.framer().consume(next);
        if let Some(uid) = wanted {
            sink.end().map_err(Error::Sink)?;
            answered.insert(uid);
        } else if known.is_none() {
            let uid = rest.uid.ok_or(Error::Protocol("it sent a body without a UID"))?;
            if asked.contains(uid) && !answered.contains(uid) {
                deliver(sink, uid, &held)?;
                answered.insert(uid);
            }
        } else {
            self.conversation.notice_something();
        }
        Ok(())
    }
}

fn fetches(uids: &UidSet, items: &str) -> Vec<String> {
    short_sets(uids).into_iter().map(|set| format!("UID FETCH {set} {items}")).collect()
}

/// The UID in `* 12 FETCH (UID 5 BODY[] {100}`, if it comes before the body.
fn announced_uid(prefix: &[u8]) -> Result<Option<Uid>> {
    let line = prefix.trim_ascii_end();
    let brace = memchr::memrchr(b'{', line).ok_or(UNREADABLE)?;
    let Response::Untagged(Untagged::Data { arguments, name, .. }) = parse(&line[..brace]) else {
        return Err(UNREADABLE);
    };
    let mut arguments = arguments;
    if !name.eq_ignore_ascii_case(b"FETCH") || !arguments.open() {
        return Err(UNREADABLE);
    }
    let mut attributes = Attributes::default();
    loop {
        let mut ahead = arguments;
        match ahead.next() {
            Some(Token::Atom(item)) if item.eq_ignore_ascii_case(b"BODY[]") && ahead.next().is_none_or(is_tilde) => {
                return Ok(attributes.uid);
            }
            Some(Token::Atom(item)) if item.eq_ignore_ascii_case(b"UID") => {
                attributes.uid = Some(Uid(ahead.number32().ok_or(UNREADABLE)?)).filter(|uid| uid.0 > 0);
            }
            Some(Token::Atom(_)) => ahead.skip_value().ok_or(UNREADABLE)?,
            _ => return Err(UNREADABLE),
        }
        arguments = ahead;
    }
}

fn is_tilde(token: Token<'_>) -> bool {
    token == Token::Atom(b"~")
}

fn deliver<S: BodySink>(sink: &mut S, uid: Uid, body: &[u8]) -> Result<()> {
    sink.start(uid, body.len() as u64).map_err(Error::Sink)?;
    for chunk in body.chunks(LONGEST_CHUNK) {
        sink.chunk(chunk).map_err(Error::Sink)?;
    }
    sink.end().map_err(Error::Sink)
}

/// Ascending, each UID once; of several the last, which is the newest.
fn sort_by_uid<T>(values: &mut Vec<T>, uid: impl Fn(&T) -> Uid) {
    if values.is_sorted_by(|a, b| uid(a) < uid(b)) {
        return;
    }
    values.reverse();
    values.sort_by_key(&uid);
    values.dedup_by_key(|value| uid(value));
}

/// The UIDs of `all` that are not in `some`.
fn without(all: &UidSet, some: &UidSet) -> UidSet {
    let mut left = UidSet::default();
    let mut taken = some.ranges().peekable();
    for (low, high) in all.ranges() {
        let mut from = u64::from(low.0);
        while let Some(&(first, last)) = taken.peek() {
            if u64::from(last.0) < from {
                taken.next();
                continue;
            }
            if first > high {
                break;
            }
            if from < u64::from(first.0) {
                left.insert_range(narrow(from), Uid(first.0 - 1));
            }
            from = u64::from(last.0) + 1;
            if last > high {
                break;
            }
            taken.next();
        }
        if from <= u64::from(high.0) {
            left.insert_range(narrow(from), high);
        }
    }
    left
}

fn narrow(uid: u64) -> Uid {
    Uid(u32::try_from(uid).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sorted_and_spelled_one_way() {
        let flags = read_flags(&mut Tokens::new(br"(work \SEEN \Recent \seen $Forwarded \Flagged)")).expect("flags");
        assert_eq!(flags, ["$Forwarded", "\\Flagged", "\\Seen", "work"]);
        assert!(read_flags(&mut Tokens::new(br"(\Seen")).is_none());
    }

    #[test]
    fn attributes_in_any_order_with_unknown_ones() {
        let line = br#"(MODSEQ (12) X-GUID 0a FLAGS () ENVELOPE ("x" ((NIL "a" NIL))) INTERNALDATE " 1-Jan-2020 00:00:00 +0000" UID 7 RFC822.SIZE 5000000000)"#;
        let row = Attributes::read(&mut Tokens::new(line)).expect("read").row().expect("whole");
        assert_eq!((row.uid, row.size, row.identity.as_deref()), (Uid(7), 5_000_000_000, Some("0a")));
        let mut emailid = Attributes::read(&mut Tokens::new(b"(EMAILID (M1) UID 7)")).expect("read");
        assert_eq!(emailid.identity.take().as_deref(), Some("M1"));
    }

    #[test]
    fn the_uid_is_found_before_the_body() {
        let uid = |line: &str| announced_uid(line.as_bytes()).map(|uid| uid.map(|uid| uid.0)).ok();
        assert_eq!(uid("* 1 FETCH (UID 5 FLAGS (\\Seen) BODY[] {5}\r\n"), Some(Some(5)));
        assert_eq!(uid("* 1 FETCH (BODY[] ~{5}\r\n"), Some(None));
        assert_eq!(uid("* 1 FETCH (X {4}\r\nUID  UID 6 BODY[] {5}\r\n"), Some(Some(6)));
        assert_eq!(uid("* 1 FETCH (X {9}\r\nUID  UID 6 BODY[] {5}\r\n"), None);
        assert_eq!(uid("* LIST (UID 5 BODY[] {5}\r\n"), None);
    }

    #[test]
    fn what_was_not_answered_is_left() {
        let check = |all: &str, some: &str, left: &str| {
            let set = |text: &str| text.parse::<UidSet>().unwrap_or_default();
            assert_eq!(without(&set(all), &set(some)).to_string(), left);
        };
        check("1:10", "1,4:5,10", "2:3,6:9");
        check("1:3,7:9", "2:8", "1,9");
        check("1:3,7:9", "", "1:3,7:9");
        check("5", "1:10", "");
        check("4294967290:4294967295", "4294967295", "4294967290:4294967294");
    }
}
