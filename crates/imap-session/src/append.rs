//! Appending messages, a batch at a time.
//!
//! Keeps true: the command line holds only a name that is quoted or counted, system flags from a fixed list and a date
//! we wrote ourselves. A server that answers such a line with BAD after we sent the message along (LITERAL+) runs the
//! message's text as commands: so no line may give it reason to, and a BAD closes the connection for good.

use std::{future::Future, io};

use chrono::{DateTime, NaiveDate, TimeDelta, TimeZone, Utc};
use understudy_protocol::{Uid, UidValidity};

use crate::{
    Error, FolderName, Result, Session,
    conversation::Outcome,
    fetch::SYSTEM_FLAGS,
    line::{Line, expand},
    naming::is_cyrus,
    response::{Status, Untagged},
    token::number,
};

/// Octets collected before they are written. 128 KiB.
const WRITE_BYTES: usize = 128 << 10;
/// RFC 7888 §5: with LITERAL- only literals up to this go without asking.
const LITERAL_MINUS_BYTES: u64 = 4096;

/// One message to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Only system flags are sent; keywords follow by [`crate::Command::AddFlags`].
    pub flags: Vec<String>,
    /// As a server wrote it. A date that IMAP servers cannot keep goes as the nearest one they can.
    pub internal_date: String,
    pub size: u64,
}

/// Gives the octets of messages to append.
pub trait ContentSource {
    /// Reads octets of message `index` from `offset` on into `buf`; returns how many, 0 only at the end.
    fn read(&mut self, index: usize, offset: u64, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

/// Where appended messages lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// 0 when the server did not say.
    pub uid_validity: UidValidity,
    /// One per message, in order; empty when the server did not say.
    pub uids: Vec<Uid>,
}

impl Session {
    /// Appends `messages` to `folder` in order. With MULTIAPPEND all or none; otherwise one after the other, and
    /// [`Error::Refused`] says how many were taken before the one refused.
    ///
    /// After [`Error::Bad`] the connection is closed, and the batch must not be sent again as it is.
    pub async fn append_batch<C: ContentSource + Send>(
        &mut self,
        folder: &FolderName,
        messages: &[Append],
        content: &mut C,
    ) -> Result<Appended> {
        if messages.iter().any(|message| message.size == 0) {
            // Servers refuse these, and take one inside a batch for its end.
            return Err(refused(None, "a message of 0 bytes".to_owned(), 0));
        }
        let mut appended = Appended::default();
        if messages.is_empty() {
            return Ok(appended);
        }
        let at_once = if self.offers("MULTIAPPEND") { messages.len() } else { 1 };
        let mut complete = true;
        let mut done = 0;
        while done < messages.len() {
            let batch = done..messages.len().min(done + at_once);
            let size = batch.len();
            let outcome = self.append_one_command(folder, messages, batch, content).await?;
            match outcome.status {
                Status::Ok => {}
                Status::No => return Err(refused(outcome.code, outcome.text, done)),
                Status::Bad => {
                    self.conversation.close().await;
                    return Err(Error::Bad { command: "APPEND", text: outcome.text });
                }
            }
            match append_uids(&outcome, size) {
                Some((uid_validity, uids)) => {
                    appended.uid_validity = uid_validity;
                    appended.uids.extend(uids);
                }
                None => complete = false,
            }
            done += size;
        }
        if !complete {
            appended.uids.clear();
        }
        Ok(appended)
    }

    async fn append_one_command<C: ContentSource + Send>(
        &mut self,
        folder: &FolderName,
        messages: &[Append],
        batch: std::ops::Range<usize>,
        content: &mut C,
    ) -> Result<Outcome> {
        let (plus, minus) = (self.offers("LITERAL+"), self.offers("LITERAL-"));
        // Cyrus takes the very first second of 1970 for "now" (measured on 3.6.1).
        let earliest = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(self.software().is_some_and(is_cyrus).into());
        let conversation = &mut self.conversation;
        conversation.begin()?;
        let tag = conversation.next_tag();
        let mut unasked = |_: usize, _: &Untagged<'_>| Ok(false);
        let name = Line::new("APPEND").name(folder);
        let mut buffer = Buffer::new();
        buffer.filled.extend_from_slice(format!("u{tag} ").as_bytes());
        let mut from = 0;
        for &literal in name.literals() {
            buffer.filled.extend_from_slice(&name.bytes()[from..literal]);
            from = literal;
            conversation.write(&buffer.filled).await?;
            buffer.clear();
            if let Some(outcome) = conversation.wait_for_continue(tag, 0, &mut unasked).await? {
                conversation.finish();
                return Ok(outcome);
            }
        }
        buffer.filled.extend_from_slice(&name.bytes()[from..]);
        for index in batch {
            let message = &messages[index];
            let unasked_literal = plus || (minus && message.size <= LITERAL_MINUS_BYTES);
            buffer.filled.extend_from_slice(arguments(message, unasked_literal, earliest).as_bytes());
            if !unasked_literal {
                conversation.write(&buffer.filled).await?;
                buffer.clear();
                if let Some(outcome) = conversation.wait_for_continue(tag, 0, &mut unasked).await? {
                    // It did not want the literal, which has not been sent: both sides agree on where they are.
                    conversation.finish();
                    return Ok(outcome);
                }
            }
            let mut offset = 0;
            while offset < message.size {
                let room = buffer.room(message.size - offset);
                let count = content.read(index, offset, room).await.map_err(Error::Source)?;
                if count == 0 || count > room.len() {
                    return Err(Error::Source(io::ErrorKind::UnexpectedEof.into()));
                }
                buffer.took(count);
                offset += count as u64;
                if buffer.is_full() {
                    conversation.write(&buffer.filled).await?;
                    buffer.clear();
                    conversation.peek().await?;
                    if let Some(outcome) = conversation.verdict_already(tag, &mut unasked)? {
                        // Judged before it was whole. What the server now takes the rest for is its secret: say no more.
                        conversation.close().await;
                        return Ok(outcome);
                    }
                }
            }
        }
        buffer.filled.extend_from_slice(b"\r\n");
        conversation.write(&buffer.filled).await?;
        let outcome = conversation.wait_for_verdict(tag, &mut unasked).await?;
        conversation.finish();
        Ok(outcome)
    }
}

/// Octets on their way: many small messages go out in one write.
struct Buffer {
    /// Zeroes beyond its length are made only where content is read.
    filled: Vec<u8>,
    reading: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { filled: Vec::with_capacity(WRITE_BYTES), reading: 0 }
    }

    /// Room for at most `wanted` octets.
    fn room(&mut self, wanted: u64) -> &mut [u8] {
        let start = self.filled.len();
        let free = WRITE_BYTES.saturating_sub(start).max(1);
        let room = usize::try_from(wanted).unwrap_or(usize::MAX).min(free);
        self.reading = start;
        self.filled.resize(start + room, 0);
        &mut self.filled[start..]
    }

    /// `count` octets of the room were used.
    fn took(&mut self, count: usize) {
        self.filled.truncate(self.reading + count);
    }

    fn is_full(&self) -> bool {
        self.filled.len() >= WRITE_BYTES
    }

    fn clear(&mut self) {
        self.filled.clear();
    }
}

fn refused(code: Option<crate::Code>, text: String, done: usize) -> Error {
    Error::Refused { command: "APPEND", code, text, done }
}

/// ` (\Seen) "17-Jul-1996 02:44:25 -0700" {1234+}` and a line end.
fn arguments(message: &Append, unasked: bool, earliest: DateTime<Utc>) -> String {
    let mut flags: Vec<&str> = Vec::new();
    for &system in &SYSTEM_FLAGS {
        if message.flags.iter().any(|flag| flag.eq_ignore_ascii_case(system)) {
            flags.push(system);
        }
    }
    let plus = if unasked { "+" } else { "" };
    format!(
        " ({}) \"{}\" {{{}{plus}}}\r\n",
        flags.join(" "),
        writable_date(&message.internal_date, earliest),
        message.size
    )
}

/// The UIDVALIDITY and UIDs of `[APPENDUID 38505 3955:3957]` (RFC 4315 §3), if there is one for each of `count`.
fn append_uids(outcome: &Outcome, count: usize) -> Option<(UidValidity, Vec<Uid>)> {
    let code = outcome.code.as_ref().filter(|code| code.name == "APPENDUID")?;
    let (uid_validity, set) = code.arguments.split_once(' ')?;
    let uid_validity = number(uid_validity.as_bytes()).and_then(|value| u32::try_from(value).ok())?;
    let uids = expand(set.trim().as_bytes(), count).filter(|uids| uids.len() == count)?;
    Some((UidValidity(uid_validity), uids))
}

/// `date` in the one form every server reads, at an instant that servers can keep: they count seconds from 1970, some
/// in 32 bits with a sign. What cannot be read at all goes as the earliest.
fn writable_date(date: &str, earliest: DateTime<Utc>) -> String {
    let latest = Utc.timestamp_opt(i64::from(i32::MAX), 0).single().unwrap_or(earliest);
    match read_date(date) {
        Some(instant) if instant >= earliest && instant <= latest => instant.format("%d-%b-%Y %H:%M:%S %z").to_string(),
        Some(instant) if instant > latest => latest.format("%d-%b-%Y %H:%M:%S +0000").to_string(),
        _ => earliest.format("%d-%b-%Y %H:%M:%S +0000").to_string(),
    }
}

/// Reads `17-Jul-1996 02:44:25 -0700`; the day may have one digit and a space.
fn read_date(date: &str) -> Option<DateTime<chrono::FixedOffset>> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let digits = |text: &str| u32::try_from(number(text.as_bytes())?).ok();
    let mut words = date.split_ascii_whitespace();
    let (day, time, zone) = (words.next()?, words.next()?, words.next()?);
    let mut day = day.split('-');
    let (day, month, year) = (digits(day.next()?)?, day.next()?, digits(day.next()?)?);
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))?;
    let mut time = time.split(':');
    let (hour, minute, second) = (digits(time.next()?)?, digits(time.next()?)?, digits(time.next()?)?);
    let (sign, zone) = match zone.split_at_checked(1)? {
        ("+", zone) => (1, digits(zone)?),
        ("-", zone) => (-1, digits(zone)?),
        _ => return None,
    };
    let east = sign * i32::try_from((zone / 100) * 3600 + (zone % 100) * 60).ok()?;
    let naive = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, u32::try_from(month).ok()? + 1, day)?
        // A leap second is the second before it, to a server that counts.
        .and_hms_opt(hour, minute, second.min(59))?;
    chrono::FixedOffset::east_opt(east)?.from_local_datetime(&naive).single()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_always_ones_a_server_takes() {
        let check =
            |date: &str, expected: &str| assert_eq!(writable_date(date, DateTime::UNIX_EPOCH), expected, "{date}");
        check("17-Jul-1996 02:44:25 -0700", "17-Jul-1996 02:44:25 -0700");
        check(" 1-jan-2020 00:00:60 +0530", "01-Jan-2020 00:00:59 +0530");
        check("29-Feb-2024 23:59:59 +1400", "29-Feb-2024 23:59:59 +1400");
        check("01-Jan-1969 00:00:00 +0000", "01-Jan-1970 00:00:00 +0000");
        check("01-Jan-2100 00:00:00 +0000", "19-Jan-2038 03:14:07 +0000");
        for hostile in [
            "",
            "x",
            "30-Feb-2020 00:00:00 +0000",
            "1-Jan-2020\" {5+}\r\n",
            "1-Jan-2020 00:00:00 +9999999999",
            "€-€-€ € €€",
        ] {
            check(hostile, "01-Jan-1970 00:00:00 +0000");
        }
    }

    #[test]
    fn only_system_flags_get_into_the_line() {
        let flags = ["\\SEEN", "\\Recent", "$Work", "\\Foo", "\\Seen) \"x\" {3+}", "\\draft"];
        let message = Append { flags: flags.map(str::to_owned).to_vec(), internal_date: String::new(), size: 7 };
        assert_eq!(
            arguments(&message, true, DateTime::UNIX_EPOCH),
            " (\\Draft \\Seen) \"01-Jan-1970 00:00:00 +0000\" {7+}\r\n"
        );
    }

    #[test]
    fn append_uids_count_or_do_not_count() {
        let uids = |arguments: &str, count| {
            let code = crate::Code { name: "APPENDUID".into(), arguments: arguments.into() };
            let outcome = Outcome { status: Status::Ok, code: Some(code), text: String::new(), arrival: 0 };
            append_uids(&outcome, count).map(|(validity, uids)| (validity.0, uids.len()))
        };
        assert_eq!(uids("7 3:5,9", 4), Some((7, 4)));
        assert_eq!(uids("7 3:5", 4), None);
        assert_eq!(uids("7 1:4294967295", 4), None);
        assert_eq!(uids("x 1", 1), None);
    }
}
