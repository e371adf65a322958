//! Calendar months, and pieces of them.

use std::{fmt, str::FromStr};

use chrono::{Datelike, Days, Months, NaiveDate};
use serde::{Deserialize, Serialize};

/// A calendar month; days are those of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(NaiveDate);

impl Month {
    /// The month that this day is in.
    #[must_use]
    pub fn of(day: NaiveDate) -> Self {
        Self(day.with_day(1).unwrap_or(day))
    }

    #[must_use]
    pub fn first(self) -> NaiveDate {
        self.0
    }

    #[must_use]
    pub fn last(self) -> NaiveDate {
        self.next().0 - Days::new(1)
    }

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + Months::new(1))
    }

    #[must_use]
    pub fn days(self) -> u32 {
        self.last().day()
    }

    /// All of it.
    #[must_use]
    pub fn whole(self) -> Piece {
        Piece { month: self, first: self.first(), last: self.last() }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m"))
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no month such as 2026-11");
        let is_month = text.len() == 7 && text.is_ascii();
        let day = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").map_err(|_| wrong())?;
        if is_month && day.year() >= 2000 { Ok(Self(day)) } else { Err(wrong()) }
    }
}

impl Serialize for Month {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Days of one month that follow each other, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub month: Month,
    pub first: NaiveDate,
    pub last: NaiveDate,
}

impl Piece {
    /// The months, whole or in part, from one day to another, both included.
    #[must_use]
    pub fn between(from: NaiveDate, to: NaiveDate) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut month = Month::of(from);
        while month.first() <= to {
            pieces.push(Self { month, first: from.max(month.first()), last: to.min(month.last()) });
            month = month.next();
        }
        pieces
    }

    #[must_use]
    pub fn days(self) -> u32 {
        u32::try_from((self.last - self.first).num_days() + 1).unwrap_or(0)
    }

    #[must_use]
    pub fn is_whole(self) -> bool {
        self == self.month.whole()
    }
}
