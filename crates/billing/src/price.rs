//! Currencies, prices and amounts, in whole numbers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Parts of a currency's unit that a price is written in: six places.
pub(crate) const PARTS: i64 = 1_000_000;
const PLACES: usize = 6;
/// No price is higher, so that no sum leaves the numbers we count in.
const HIGHEST: i64 = 1_000_000 * PARTS;

/// Codes of ISO 4217 and the places of their smallest unit.
const CURRENCIES: &[(&str, u8)] = &[
    ("AED", 2),
    ("AUD", 2),
    ("BGN", 2),
    ("BHD", 3),
    ("BRL", 2),
    ("CAD", 2),
    ("CHF", 2),
    ("CLP", 0),
    ("CNY", 2),
    ("CZK", 2),
    ("DKK", 2),
    ("EUR", 2),
    ("GBP", 2),
    ("HKD", 2),
    ("HUF", 2),
    ("IDR", 2),
    ("ILS", 2),
    ("INR", 2),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("MXN", 2),
    ("MYR", 2),
    ("NOK", 2),
    ("NZD", 2),
    ("OMR", 3),
    ("PHP", 2),
    ("PLN", 2),
    ("RON", 2),
    ("RSD", 2),
    ("SAR", 2),
    ("SEK", 2),
    ("SGD", 2),
    ("THB", 2),
    ("TND", 3),
    ("TRY", 2),
    ("TWD", 2),
    ("UAH", 2),
    ("USD", 2),
    ("VND", 0),
    ("ZAR", 2),
];

/// A currency we can count in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    code: &'static str,
    places: u8,
}

impl Currency {
    #[must_use]
    pub fn code(self) -> &'static str {
        self.code
    }

    /// How many places of the unit are counted: 2 for EUR, 0 for JPY.
    #[must_use]
    pub fn places(self) -> u8 {
        self.places
    }

    /// Parts of a price in one smallest unit.
    pub(crate) fn parts_in_minor(self) -> i128 {
        i128::from(PARTS) / 10_i128.pow(u32::from(self.places))
    }

    /// An amount written as `-12.34`.
    pub fn amount(self, text: &str) -> Result<Money, String> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let parts = parse(digits, usize::from(self.places))?;
        let minor = i64::try_from(i128::from(parts) / self.parts_in_minor()).map_err(|_| "too large".to_owned())?;
        Ok(Money { minor: sign * minor, currency: self })
    }
}

impl FromStr for Currency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = CURRENCIES.iter().find(|(code, _)| *code == text);
        known.map(|&(code, places)| Self { code, places }).ok_or_else(|| {
            format!("`{text}` is no currency we can count in; one of {}", {
                let codes: Vec<&str> = CURRENCIES.iter().map(|(code, _)| *code).collect();
                codes.join(", ")
            })
        })
    }
}

impl TryFrom<String> for Currency {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

/// So many smallest units of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = usize::from(self.currency.places);
        let unit = 10_u64.pow(u32::from(self.currency.places));
        let (whole, part) = (self.minor.unsigned_abs() / unit, self.minor.unsigned_abs() % unit);
        let sign = if self.minor < 0 { "-" } else { "" };
        if places == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{part:0places$}") }
    }
}

/// The price of one unit of something: 0 or more, to six places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(pub(crate) i64);

impl Price {
    pub const FREE: Self = Self(0);

    pub(crate) fn parts(self) -> i128 {
        i128::from(self.0)
    }
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = parse(text, PLACES)?;
        if parts > HIGHEST { Err("a price is at most 1000000".to_owned()) } else { Ok(Self(parts)) }
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / PARTS, self.0 % PARTS);
        let part = format!("{part:06}");
        let part = part.trim_end_matches('0');
        // As prices are written: two places, unless there are more.
        write!(f, "{whole}.{part:0<2}")
    }
}

impl Serialize for Price {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// `12.34` in parts of a unit, with at most so many places.
fn parse(text: &str, places: usize) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no amount such as 2.50, with at most {places} places");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let ends_in_point = text.ends_with('.');
    if whole.is_empty() || whole.len() > 12 || part.len() > places || ends_in_point || !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let whole: i64 = whole.parse().map_err(|_| wrong())?;
    let part: i64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
    whole.checked_mul(PARTS).and_then(|parts| parts.checked_add(part)).ok_or_else(wrong)
}

/// `numerator / denominator`, the nearest whole number; halves away from zero.
pub(crate) fn nearest(numerator: i128, denominator: i128) -> i128 {
    // Twice as fine, so that an odd denominator rounds right too.
    let rounded = (numerator.abs() * 2 + denominator) / (denominator * 2);
    numerator.signum() * rounded
}
