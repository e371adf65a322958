//! The data: mail that looks like mail, the same on every machine for the same seed.
//!
//! In: a shape (mailboxes, messages) and a seed. Out: one message at a time, by its number, from any thread.
//! Keeps true: sizes are log-normal (median 20 KiB, up to 12 MiB); a fifth carry an attachment, and half of the
//! attachments repeat; four in five attachments do not compress; one in ten is wrapped at 72 columns instead of 76,
//! so a repeated attachment is not always the same bytes on the wire.
//! Not here: bringing it into a server (`load`).

use chrono::{DateTime, Duration, Utc};

use crate::imap::Message;
use crate::random::Random;
use crate::text::{text_until, words, wrap_base64};

const KIB: f64 = 1024.0;
const MEDIAN_BYTES: f64 = 20.0 * KIB;
/// Spread of the logarithm of the size: p90 about 150 KiB, mean about 70 KiB.
const SIGMA: f64 = 1.6;
const MIN_BYTES: f64 = 700.0;
const MAX_BYTES: f64 = 12.0 * KIB * KIB;
/// Every so many messages one has more than 10 MiB, so that a full-size load always has some.
const VERY_LARGE_EVERY: u64 = 7_000;

/// Modified UTF-7, as they travel: nested, non-ASCII and with a space.
const FOLDERS: [&str; 12] = [
    "INBOX",
    "Sent",
    "Drafts",
    "Archive",
    "Archive/2024",
    "Archive/2025",
    "Archive/2025/Q1",
    "Projects",
    "Projects/North Wing",
    "Projects/&ANw-bersicht",
    "&ZeVnLIqe-",
    "Junk",
];

/// What a load consists of. The mailbox names are `{prefix}{number}`.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) prefix: &'static str,
    pub(crate) mailboxes: u32,
    pub(crate) messages_each: u32,
    seed: u64,
}

/// What was generated, for the report: a reader must be able to tell whether the data is what was asked for.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Summary {
    pub(crate) mailboxes: u32,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) median_bytes: u64,
    pub(crate) p90_bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) over_10_mib: u64,
    pub(crate) attachment_share: f64,
    pub(crate) repeated_attachment_share: f64,
}

/// A message together with the place it belongs to.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) folder: &'static str,
    pub(crate) message: Message,
    pub(crate) attachment: Option<u64>,
}

impl Workload {
    /// W1: one large mailbox, 20,000 messages at scale 1.
    pub(crate) fn one_large(scale: f64) -> Self {
        Self { prefix: "large", mailboxes: 1, messages_each: scaled(20_000, scale, 40), seed: 1 }
    }

    /// W2: 50 mailboxes of 300 messages at scale 1; fewer mailboxes below, not smaller ones.
    pub(crate) fn many(scale: f64) -> Self {
        Self { prefix: "many", mailboxes: scaled(50, scale, 2), messages_each: 300, seed: 2 }
    }

    /// What the mailboxes under live traffic hold before it begins: as many folders and messages as in W2.
    pub(crate) fn live(mailboxes: u32, scale: f64) -> Self {
        Self { prefix: "live", mailboxes, messages_each: scaled(300, scale, 30), seed: 5 }
    }

    /// What is delivered while the line is cut.
    pub(crate) fn missed(mailboxes: u32, messages_each: u32) -> Self {
        Self { prefix: "cut", mailboxes, messages_each, seed: 8 }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.mailboxes).map(|number| format!("{}{number:03}", self.prefix)).collect()
    }

    pub(crate) fn total_messages(&self) -> u64 {
        u64::from(self.mailboxes) * u64::from(self.messages_each)
    }

    pub(crate) fn folders() -> &'static [&'static str] {
        &FOLDERS
    }

    /// The message `index` of mailbox `mailbox`; the same for ever.
    pub(crate) fn message(&self, mailbox: u32, index: u32) -> Placed {
        let number = u64::from(mailbox) * u64::from(self.messages_each) + u64::from(index);
        let mut random = Random::new(self.seed, number);
        let size = size_of(number, &mut random);
        let attachment = self.choose_attachment(number, size, &mut random);
        let bytes = self.compose(number, size, attachment, &mut random);
        Placed {
            folder: choose_folder(&mut random),
            attachment: attachment.map(|attachment| attachment.id),
            message: Message { flags: choose_flags(&mut random), internal_date: internal_date(number), bytes },
        }
    }

    fn choose_attachment(&self, number: u64, size: usize, random: &mut Random) -> Option<Attachment> {
        // Large mail is large because of what hangs on it; the shares add up to a fifth of all messages.
        let chance = match size {
            0..8_000 => 0.03,
            8_000..50_000 => 0.12,
            _ => 0.50,
        };
        if !random.chance(chance) {
            return None;
        }
        let decoded = (size.saturating_sub(1_200) as f64 * 0.70).max(200.0) as usize;
        if !random.chance(0.58) {
            return Some(Attachment { id: (1 << 63) | number, size: decoded });
        }
        // From the pool of its size class; a first use makes a pooled attachment one of the unique half.
        let class = u64::from(decoded.ilog2());
        let members = ((self.total_messages() / 800) >> class.saturating_sub(17).min(20)).max(1);
        let id = class << 32 | random.below(members);
        let low = 1_usize << class;
        let size = low + Random::new(self.seed ^ 0xA77A, id).below(low as u64) as usize;
        Some(Attachment { id, size })
    }

    fn compose(&self, number: u64, size: usize, attachment: Option<Attachment>, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::with_capacity(size + size / 4 + 2_048);
        let date = date_of(number).to_rfc2822();
        let subject = words(random, 6);
        let sender = random.below(400);
        let head = format!(
            "Return-Path: <p{sender}@example.net>\r\nReceived: from relay{}.example.net (relay [192.0.2.{}])\r\n\tby mail.example.org with ESMTPS id {:016x}; {date}\r\nFrom: \"Person {sender}\" <p{sender}@example.net>\r\nTo: <{}@example.org>\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{}.{number}.{:x}@example.net>\r\nMIME-Version: 1.0\r\n",
            random.below(8),
            random.below(254) + 1,
            random.next(),
            self.prefix,
            self.seed,
            random.next(),
        );
        out.extend_from_slice(head.as_bytes());
        match attachment {
            None => {
                out.extend_from_slice(
                    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
                );
                text_until(&mut out, size, random);
            }
            Some(attachment) => {
                let boundary = format!("=_{:016x}", random.next());
                let text = 400 + random.below(1_200) as usize;
                let columns = if random.chance(0.1) { 72 } else { 76 };
                let start = format!(
                    "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
                );
                out.extend_from_slice(start.as_bytes());
                let end = out.len() + text;
                text_until(&mut out, end, random);
                let part = format!(
                    "\r\n--{boundary}\r\nContent-Type: application/octet-stream; name=\"file-{:x}.bin\"\r\nContent-Disposition: attachment; filename=\"file-{:x}.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n",
                    attachment.id, attachment.id
                );
                out.extend_from_slice(part.as_bytes());
                wrap_base64(&mut out, &attachment.bytes(self.seed), columns);
                out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
            }
        }
        out
    }
}

#[derive(Clone, Copy)]
struct Attachment {
    id: u64,
    size: usize,
}

impl Attachment {
    fn bytes(self, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed ^ 0xC0DE, self.id);
        if random.chance(0.8) {
            let mut bytes = vec![0; self.size];
            random.fill(&mut bytes);
            return bytes;
        }
        let mut bytes = Vec::with_capacity(self.size + 128);
        text_until(&mut bytes, self.size, &mut random);
        bytes.truncate(self.size);
        bytes
    }
}

/// Collects the sizes and repetitions of what passes by.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    sizes: Vec<u64>,
    attachments: Vec<u64>,
}

impl Survey {
    pub(crate) fn note(&mut self, placed: &Placed) {
        self.sizes.push(placed.message.bytes.len() as u64);
        self.attachments.extend(placed.attachment);
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.sizes.extend(other.sizes);
        self.attachments.extend(other.attachments);
    }

    pub(crate) fn summary(mut self, workload: &Workload) -> Summary {
        self.sizes.sort_unstable();
        let messages = self.sizes.len();
        let with_attachment = self.attachments.len();
        self.attachments.sort_unstable();
        self.attachments.dedup();
        let at = |share: f64| self.sizes.get((messages as f64 * share) as usize).copied().unwrap_or(0);
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Summary {
            mailboxes: workload.mailboxes,
            messages: messages as u64,
            bytes: self.sizes.iter().sum(),
            median_bytes: at(0.5),
            p90_bytes: at(0.9),
            max_bytes: self.sizes.last().copied().unwrap_or(0),
            over_10_mib: self.sizes.iter().filter(|size| **size > 10 << 20).count() as u64,
            attachment_share: share(with_attachment, messages),
            repeated_attachment_share: share(with_attachment - self.attachments.len(), with_attachment),
        }
    }
}

/// A short plain message, for traffic and for the many-small-messages case.
pub(crate) fn small_message(message_id: &str, bytes: usize, random: &mut Random) -> Message {
    let mut out = format!(
        "From: <a@example.net>\r\nTo: <b@example.org>\r\nSubject: {}\r\nMessage-ID: <{message_id}>\r\n\r\n",
        words(random, 4)
    )
    .into_bytes();
    text_until(&mut out, bytes, random);
    Message { flags: String::new(), internal_date: internal_date(random.below(1_000)), bytes: out }
}

/// One message of `bytes` whose attachment does not compress.
pub(crate) fn huge_message(bytes: usize) -> Message {
    let mut out = b"From: <a@example.net>\r\nTo: <b@example.org>\r\nSubject: very large\r\nMessage-ID: <huge@bench>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_huge\"\r\n\r\n--=_huge\r\nContent-Type: text/plain\r\n\r\nsee attachment\r\n--=_huge\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_vec();
    // 76 columns of base64 and CRLF carry 57 bytes.
    let mut attachment = vec![0; bytes / 78 * 57];
    Random::new(3, 0).fill(&mut attachment);
    wrap_base64(&mut out, &attachment, 76);
    out.extend_from_slice(b"--=_huge--\r\n");
    Message { flags: String::new(), internal_date: internal_date(0), bytes: out }
}

fn scaled(full: u32, scale: f64, least: u32) -> u32 {
    ((f64::from(full) * scale).round() as u32).max(least)
}

fn size_of(number: u64, random: &mut Random) -> usize {
    let drawn = MEDIAN_BYTES * (SIGMA * random.normal()).exp();
    let size = if number % VERY_LARGE_EVERY == VERY_LARGE_EVERY / 2 {
        10.5 * KIB * KIB + drawn.min(1.0 * KIB * KIB)
    } else {
        drawn.clamp(MIN_BYTES, MAX_BYTES)
    };
    size as usize
}

fn choose_folder(random: &mut Random) -> &'static str {
    // A third stays in INBOX, the rest is spread.
    if random.chance(0.3) { FOLDERS[0] } else { FOLDERS[random.below(FOLDERS.len() as u64) as usize] }
}

fn choose_flags(random: &mut Random) -> String {
    let mut flags = Vec::new();
    for (flag, chance) in [("\\Seen", 0.7), ("\\Answered", 0.1), ("\\Flagged", 0.05), ("$Forwarded", 0.04)] {
        if random.chance(chance) {
            flags.push(flag);
        }
    }
    flags.join(" ")
}

fn date_of(number: u64) -> DateTime<Utc> {
    let start = DateTime::from_timestamp(1_704_067_200, 0).unwrap_or_default();
    start + Duration::seconds((number % 1_000_000) as i64 * 61)
}

fn internal_date(number: u64) -> String {
    date_of(number).format("%d-%b-%Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_every_time() {
        let workload = Workload::one_large(0.02);
        let one = workload.message(0, 17);
        let two = workload.message(0, 17);
        assert_eq!(one.message.bytes, two.message.bytes);
        assert_eq!(one.folder, two.folder);
        assert_ne!(workload.message(0, 18).message.bytes, one.message.bytes);
    }

    #[test]
    fn the_load_has_the_shape_that_the_benchmark_promises() {
        let workload = Workload::one_large(0.1);
        let mut survey = Survey::default();
        for index in 0..workload.messages_each {
            survey.note(&workload.message(0, index));
        }
        let summary = survey.summary(&workload);
        assert!((17_000..24_000).contains(&summary.median_bytes), "{summary:?}");
        assert!((0.17..0.24).contains(&summary.attachment_share), "{summary:?}");
        assert!((0.4..0.6).contains(&summary.repeated_attachment_share), "{summary:?}");
        assert!(summary.max_bytes < 14 << 20, "{summary:?}");
        assert!((45_000..95_000).contains(&(summary.bytes / summary.messages)), "{summary:?}");
    }

    #[test]
    fn lines_end_in_crlf_and_stay_within_the_limit_of_mail() {
        let workload = Workload::many(0.02);
        for index in 0..50 {
            let bytes = workload.message(1, index).message.bytes;
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                assert!(line.ends_with(b"\r\n") && line.len() <= 1_000, "line of {} bytes", line.len());
            }
        }
    }
}
