//! Rates by calendar: `mon-fri 08:00-18:00: 2 MB/s, else unlimited`.
//!
//! Rules are read from left to right, and the first that fits the time counts; where none fits, nothing is limited. A
//! span of hours that ends before it begins goes on into the next day.
//! Not here: which clock is asked (the source gateway's own, with its time zone), and counting bytes.

use std::{fmt, str::FromStr};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u16 = 24 * 60;

/// How much may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Nothing at all.
    Off,
    /// So many bytes a second.
    Bytes(u64),
    Unlimited,
}

/// Rates and when they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Monday first.
    days: [bool; 7],
    /// Minutes of the day, the second one not included.
    hours: Option<(u16, u16)>,
    rate: Rate,
}

/// Why a text is no calendar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` {why}")]
pub struct CalendarError {
    pub part: String,
    pub why: &'static str,
}

fn wrong(part: &str, why: &'static str) -> CalendarError {
    CalendarError { part: part.trim().to_owned(), why }
}

impl Calendar {
    /// The rate at a time: days since Monday, and minutes since midnight.
    #[must_use]
    pub fn at(&self, day: u8, minute: u16) -> Rate {
        self.rules.iter().find(|rule| rule.holds(day % 7, minute)).map_or(Rate::Unlimited, |rule| rule.rate)
    }

    /// Is there ever a time at which nothing may be sent?
    #[must_use]
    pub fn is_ever_off(&self) -> bool {
        self.rules.iter().any(|rule| rule.rate == Rate::Off)
    }
}

impl Rule {
    fn holds(&self, day: u8, minute: u16) -> bool {
        let on = |day: u8| self.days[usize::from(day % 7)];
        match self.hours {
            None => on(day),
            Some((from, to)) if from < to => on(day) && (from..to).contains(&minute),
            // Past midnight it is still the day before's.
            Some((from, to)) => (on(day) && minute >= from) || (on(day + 6) && minute < to),
        }
    }
}

impl FromStr for Calendar {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let mut rules = Vec::new();
        let mut days_so_far = String::new();
        for part in text.split([',', ';']) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            // `mon, wed 8:00-9:00: …`: days may be a list.
            if days_of(part).is_some() && part != "else" {
                days_so_far += part;
                days_so_far.push(' ');
                continue;
            }
            rules.push(rule(&format!("{days_so_far}{part}"))?);
            days_so_far.clear();
        }
        if !days_so_far.is_empty() {
            return Err(wrong(&days_so_far, "names no rate: write it behind a colon, such as `: 2 MB/s`"));
        }
        Ok(Self { rules })
    }
}

fn rule(text: &str) -> Result<Rule, CalendarError> {
    if let Some(rest) = text.trim().strip_prefix("else") {
        return Ok(Rule { days: [true; 7], hours: None, rate: rate(rest.trim_start_matches(':'))? });
    }
    // The colon before the rate is the last one; hours have some of their own.
    let Some((when, written)) = text.rsplit_once(':').filter(|(_, rate)| !looks_like_minutes(rate)) else {
        return Ok(Rule { days: [true; 7], hours: None, rate: rate(text)? });
    };
    let (mut days, mut named, mut hours) = ([false; 7], false, None);
    for word in when.split_whitespace() {
        if let Some(these) = days_of(word) {
            named = true;
            days.iter_mut().zip(these).for_each(|(day, this)| *day |= this);
        } else if let Some(these) = hours_of(word) {
            if hours.replace(these).is_some() {
                return Err(wrong(when, "names two spans of hours: write a rule for each"));
            }
        } else {
            return Err(wrong(word, "is neither a day (mon-fri) nor a span of hours (08:00-18:00)"));
        }
    }
    if !named {
        days = [true; 7];
    }
    Ok(Rule { days, hours, rate: rate(written)? })
}

/// `00`, `00-18`: the colon before it belongs to an hour, and a rate is missing.
fn looks_like_minutes(text: &str) -> bool {
    let text = text.trim();
    text.len() >= 2 && text.bytes().take(2).all(|byte| byte.is_ascii_digit()) && !text.contains(['/', ' '])
}

fn days_of(word: &str) -> Option<[bool; 7]> {
    let word = word.trim().to_ascii_lowercase();
    if word == "daily" {
        return Some([true; 7]);
    }
    let day = |name: &str| DAYS.iter().position(|day| *day == name);
    let (from, to) = match word.split_once('-') {
        Some((from, to)) => (day(from)?, day(to)?),
        None => (day(&word)?, day(&word)?),
    };
    let mut days = [false; 7];
    let mut at = from;
    loop {
        days[at] = true;
        if at == to {
            return Some(days);
        }
        at = (at + 1) % 7;
    }
}

fn hours_of(word: &str) -> Option<(u16, u16)> {
    let minute = |text: &str| -> Option<u16> {
        let (hour, minute) = text.split_once(':')?;
        let digits = |text: &str| !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(hour) || minute.len() != 2 || !digits(minute) {
            return None;
        }
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (minute < 60 && hour * 60 + minute <= DAY_MINUTES).then_some(hour * 60 + minute)
    };
    let (from, to) = word.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    (from != to && from < DAY_MINUTES).then_some((from, to))
}

fn rate(text: &str) -> Result<Rate, CalendarError> {
    const WRITE: &str = "is no rate: write it like `2 MB/s`, `500 kB/s`, `20 Mbit/s`, `unlimited` or `off`";
    let lower = text.trim().to_ascii_lowercase();
    match lower.as_str() {
        "unlimited" => return Ok(Rate::Unlimited),
        "off" => return Ok(Rate::Off),
        _ => {}
    }
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| wrong(text, WRITE))?;
    let (number, unit) = lower.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong(text, WRITE))?;
    let factor = match unit.trim() {
        "b/s" => 1.0,
        "kb/s" => 1e3,
        "mb/s" => 1e6,
        "gb/s" => 1e9,
        "kib/s" => 1024.0,
        "mib/s" => 1_048_576.0,
        "kbit/s" => 125.0,
        "mbit/s" => 125_000.0,
        "gbit/s" => 125_000_000.0,
        _ => return Err(wrong(text, WRITE)),
    };
    let bytes = number * factor;
    if !(SLOWEST..=1e12).contains(&bytes) {
        return Err(wrong(text, "is below 1 kB/s or beyond reason: write `off` or `unlimited`"));
    }
    // In range, as was just checked.
    Ok(Rate::Bytes(bytes as u64))
}

/// Below this heartbeats alone would not pass.
const SLOWEST: f64 = 1000.0;

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Bytes(bytes) if *bytes >= 1_000_000 => write!(f, "{} MB/s", (*bytes as f64) / 1e6),
            Self::Bytes(bytes) => write!(f, "{} kB/s", (*bytes as f64) / 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: u8 = 0;
    const SATURDAY: u8 = 5;
    const SUNDAY: u8 = 6;

    fn calendar(text: &str) -> Calendar {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn office_hours_and_the_rest() {
        let office = calendar("mon-fri 08:00-18:00: 2 MB/s, else unlimited");
        assert_eq!(office.at(MONDAY, 8 * 60), Rate::Bytes(2_000_000));
        assert_eq!(office.at(MONDAY, 8 * 60 - 1), Rate::Unlimited);
        assert_eq!(office.at(MONDAY, 18 * 60), Rate::Unlimited);
        assert_eq!(office.at(SATURDAY, 12 * 60), Rate::Unlimited);
    }

    #[test]
    fn a_night_belongs_to_the_day_it_began() {
        let night = calendar("sun 22:00-06:00: off; else 500 kB/s");
        assert_eq!(night.at(SUNDAY, 23 * 60), Rate::Off);
        assert_eq!(night.at(MONDAY, 5 * 60), Rate::Off);
        assert_eq!(night.at(SUNDAY, 5 * 60), Rate::Bytes(500_000));
        assert_eq!(night.at(MONDAY, 23 * 60), Rate::Bytes(500_000));
        assert!(night.is_ever_off());
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let some = calendar("mon, wed 7:00-9:00: 1 MB/s, sat-mon: 20 Mbit/s, 12:00-13:00: 64 kbit/s");
        assert_eq!(some.at(MONDAY, 8 * 60), Rate::Bytes(1_000_000));
        assert_eq!(some.at(MONDAY, 10 * 60), Rate::Bytes(2_500_000));
        assert_eq!(some.at(SATURDAY, 12 * 60), Rate::Bytes(2_500_000));
        assert_eq!(some.at(2, 8 * 60), Rate::Bytes(1_000_000));
        assert_eq!(some.at(2, 12 * 60 + 59), Rate::Bytes(8_000));
        assert_eq!(some.at(2, 14 * 60), Rate::Unlimited);
    }

    #[test]
    fn short_forms_and_nothing() {
        assert_eq!(calendar("").at(MONDAY, 0), Rate::Unlimited);
        assert_eq!(calendar("1.5 MB/s").at(SUNDAY, 1439), Rate::Bytes(1_500_000));
        assert_eq!(calendar("daily 00:00-24:00: 3 MB/s").at(SUNDAY, 1439), Rate::Bytes(3_000_000));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_part() {
        for text in [
            "mon-fri",
            "mon-fry: 2 MB/s",
            "08:00-18:00",
            "25:00-26:00: 1 MB/s",
            "8-18: 1 MB/s",
            "2 MB",
            "fast",
            "10 B/s",
            "mon 08:00-09:00 10:00-11:00: 1 MB/s",
            "-5 MB/s",
            "08:00-08:00: off",
            "else",
            ": 2 MB/s x",
        ] {
            let error = text.parse::<Calendar>().map(|read| panic!("{text} was read as {read:?}")).unwrap_err();
            assert!(!error.part.is_empty() || text == "else", "{text}: {error}");
        }
    }
}
