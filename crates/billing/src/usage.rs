//! What a mailbox used, as it was metered, and how much of it falls into some days.

use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::month::Piece;

/// Everything metered of one mailbox: an address on a primary, however often it was protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxUsage {
    pub address: String,
    pub primary: String,
    pub group: String,
    pub spans: Vec<Span>,
    /// Bytes kept at the end of a day on which that changed; holds until the next.
    pub kept: Vec<(NaiveDate, u64)>,
    pub carried: Vec<(NaiveDate, u64)>,
    pub switchovers: Vec<NaiveDate>,
}

/// From the day of its protection to the day that ended, both included; without an end when it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: NaiveDate,
    pub last: Option<NaiveDate>,
}

/// What was used in some days of a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Days on which it was protected, if only for a moment.
    pub days: u32,
    /// The sum over those days of what was kept at their end.
    pub kept_byte_days: u128,
    pub carried_bytes: u128,
    pub switchovers: u64,
}

impl MailboxUsage {
    /// What falls into these days.
    #[must_use]
    pub fn measure(&self, piece: Piece) -> Measured {
        let mut kept = self.kept.clone();
        kept.sort_unstable();
        let mut measured = Measured::default();
        let mut day = piece.first;
        let mut known = kept.iter().peekable();
        let mut bytes = 0;
        while day <= piece.last {
            while let Some((_, now)) = known.next_if(|(at, _)| *at <= day) {
                bytes = *now;
            }
            if self.spans.iter().any(|span| span.first <= day && span.last.is_none_or(|last| day <= last)) {
                measured.days += 1;
                measured.kept_byte_days += u128::from(bytes);
            }
            day = day + Days::new(1);
        }
        let within = |day: &NaiveDate| piece.first <= *day && *day <= piece.last;
        measured.carried_bytes =
            self.carried.iter().filter(|(day, _)| within(day)).map(|(_, bytes)| u128::from(*bytes)).sum();
        measured.switchovers = self.switchovers.iter().filter(|day| within(day)).count() as u64;
        measured
    }
}
