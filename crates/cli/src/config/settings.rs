//! Settings as they were written: by dotted key, each with the place it came from.
//!
//! In: the file, then the environment, which wins. Out: [`Settings`] of checked kinds, and every [`Problem`] found.
//! Not here: what settings mean together (`super`).

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::schema::{Key, Kind, nearest};
use crate::duration::parse_duration;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    File { path: PathBuf, line: usize },
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
        }
    }
}

/// One thing wrong with the configuration: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// None when it is about something that was not written at all.
    pub(crate) origin: Option<Origin>,
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// A value of the kind its key takes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    List(Vec<String>),
}

/// A value and where it was written. It may hold a secret, so it has no `Debug`.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// Everything that was written and passed the check of its kind.
#[derive(Default)]
pub(crate) struct Settings {
    values: BTreeMap<String, Setting>,
    /// Where each `[[server]]`, `[[front_door]]` … began.
    tables: BTreeMap<&'static str, Vec<Origin>>,
    pub(super) problems: Vec<Problem>,
}

/// A value before its kind was checked.
pub(super) enum Written {
    Text(String),
    Flag(bool),
    List(Vec<String>),
    Number(String),
    /// Something no key takes, such as a date.
    Other(&'static str),
}

impl Settings {
    /// The text under `key`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.values.get(key)?.value {
            Value::Text(text) => Some(text),
            Value::Flag(_) | Value::List(_) => None,
        }
    }

    /// Whether the flag under `key` is set.
    pub(crate) fn flag(&self, key: &str) -> bool {
        matches!(self.values.get(key).map(|setting| &setting.value), Some(Value::Flag(true)))
    }

    /// The list under `key`.
    pub(crate) fn list(&self, key: &str) -> Option<&[String]> {
        match &self.values.get(key)?.value {
            Value::List(list) => Some(list),
            Value::Text(_) | Value::Flag(_) => None,
        }
    }

    pub(crate) fn origin(&self, key: &str) -> Option<&Origin> {
        Some(&self.values.get(key)?.origin)
    }

    /// Whether anything was written under the table `prefix`.
    pub(crate) fn has_table(&self, prefix: &str) -> bool {
        self.values.keys().any(|key| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Where each `[[name]]` began, in their order.
    pub(super) fn tables(&self, name: &str) -> &[Origin] {
        self.tables.get(name).map_or(&[], Vec::as_slice)
    }

    /// Begins another `[[name]]`, and answers its number.
    pub(super) fn begin_table(&mut self, name: &'static str, origin: Origin) -> usize {
        let tables = self.tables.entry(name).or_default();
        tables.push(origin);
        tables.len() - 1
    }

    pub(super) fn problem(&mut self, origin: Option<Origin>, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { origin, what: what.into(), remedy: remedy.into() });
    }

    /// A key that does not exist was written in the table `table` ("" at the top).
    pub(super) fn unknown(&mut self, origin: Origin, written: &str, table: &str, keys: &[Key]) {
        let place = if table.is_empty() { "at the top of the file".to_owned() } else { format!("in [{table}]") };
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        let remedy = match nearest(written, names.iter().copied()) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("valid there: {}", names.join(", ")),
        };
        self.problem(Some(origin), format!("unknown key \"{written}\" {place}"), remedy);
    }

    /// Checks a written value against the kind of its key and keeps it.
    pub(super) fn take(&mut self, key: String, kind: &Kind, written: Written, origin: Origin) {
        match check(kind, written, &origin) {
            Ok(value) => {
                self.values.insert(key, Setting { value, origin });
            }
            Err(Refused::Kind(found)) => {
                let what = format!("\"{key}\" is {found}");
                self.problem(Some(origin), what, format!("write {}", kind.expected()));
            }
            Err(Refused::Value { why, near }) => {
                let remedy = match near {
                    Some(near) => format!("did you mean \"{near}\"? It takes {}", kind.expected()),
                    None => format!("write {}", kind.expected()),
                };
                self.problem(Some(origin), format!("\"{key}\" {why}"), remedy);
            }
            Err(Refused::SecretInFile) => self.problem(
                Some(origin),
                format!("\"{key}\" is a secret written into the configuration file"),
                format!("write it to a file of its own and name that as \"{key}_file\""),
            ),
        }
    }
}

enum Refused {
    Kind(&'static str),
    Value { why: String, near: Option<&'static str> },
    SecretInFile,
}

fn check(kind: &Kind, written: Written, origin: &Origin) -> Result<Value, Refused> {
    let text = |written: Written| match written {
        Written::Text(text) => Ok(text),
        Written::Flag(_) => Err(Refused::Kind("true or false")),
        Written::List(_) => Err(Refused::Kind("a list")),
        Written::Number(_) => Err(Refused::Kind("a number")),
        Written::Other(found) => Err(Refused::Kind(found)),
    };
    match kind {
        Kind::Flag => match written {
            Written::Flag(flag) => Ok(Value::Flag(flag)),
            other => Err(match text(other) {
                Ok(_) => Refused::Kind("a text"),
                Err(refused) => refused,
            }),
        },
        Kind::Urls(schemes) => {
            let list = list_of(written, text)?;
            list.iter().try_for_each(|url| check_url(url, schemes))?;
            Ok(Value::List(list))
        }
        Kind::Words => Ok(Value::List(list_of(written, text)?)),
        Kind::Url(schemes) | Kind::SecretUrl(schemes) => {
            let url = text(written)?;
            check_url(&url, schemes)?;
            Ok(Value::Text(url))
        }
        Kind::Listen => {
            let address = text(written)?;
            match super::listen_address(&address) {
                Some(_) => Ok(Value::Text(address)),
                None => Err(Refused::Value { why: "is no address to listen on".into(), near: None }),
            }
        }
        Kind::Choice(choices) => {
            let choice = text(written)?;
            if choices.contains(&choice.as_str()) {
                return Ok(Value::Text(choice));
            }
            let near = nearest(&choice, choices.iter().copied());
            Err(Refused::Value { why: format!("cannot be \"{choice}\""), near })
        }
        Kind::Number => {
            let number = match written {
                Written::Number(number) => number,
                other => text(other)?,
            };
            match number.parse::<u32>() {
                Ok(_) => Ok(Value::Text(number)),
                Err(_) => Err(Refused::Value { why: format!("cannot be {number}"), near: None }),
            }
        }
        Kind::Share | Kind::Size | Kind::Duration { .. } => {
            let written = text(written)?;
            let fits = match kind {
                Kind::Duration { or_off: false } => parse_duration(&written).is_ok_and(|long| !long.is_zero()),
                Kind::Duration { or_off: true } => {
                    written == OFF || parse_duration(&written).is_ok_and(|long| !long.is_zero())
                }
                Kind::Size => size(&written).is_some_and(|bytes| bytes > 0),
                _ => written == OFF || share(&written).is_some(),
            };
            if fits {
                return Ok(Value::Text(written));
            }
            Err(Refused::Value { why: format!("cannot be \"{written}\""), near: None })
        }
        Kind::Secret if matches!(origin, Origin::File { .. }) => Err(Refused::SecretInFile),
        Kind::Text | Kind::Path | Kind::Secret => {
            let text = text(written)?;
            if text.is_empty() {
                return Err(Refused::Value { why: "is empty".into(), near: None });
            }
            Ok(Value::Text(text))
        }
        Kind::Table(_) | Kind::Tables(_) => Err(Refused::Kind("a single value")),
    }
}

/// What switches a thing off.
pub(super) const OFF: &str = "off";

/// Bytes as people write them: `500 MB`, `20GB`, `64 KiB`, or a bare number.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `50%` as 0.5.
pub(super) fn share(text: &str) -> Option<f64> {
    let per_cent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&per_cent).then_some(per_cent / 100.0)
}

fn list_of(written: Written, text: impl Fn(Written) -> Result<String, Refused>) -> Result<Vec<String>, Refused> {
    match written {
        Written::List(list) => Ok(list),
        other => text(other).map(|text| vec![text]),
    }
}

/// The URL itself is not repeated in what is said about it: it may hold a password.
fn check_url(url: &str, schemes: &[&'static str]) -> Result<(), Refused> {
    let refused = |why: String, near| Err(Refused::Value { why, near });
    match url::Url::parse(url) {
        Err(error) => refused(format!("is no URL: {error}"), None),
        Ok(parsed) if !schemes.contains(&parsed.scheme()) => {
            refused(format!("has the scheme {}://", parsed.scheme()), nearest(parsed.scheme(), schemes.iter().copied()))
        }
        Ok(parsed) if parsed.host_str().is_none_or(str::is_empty) && !is_socket_url(&parsed) => {
            refused("names no host".into(), None)
        }
        Ok(_) => Ok(()),
    }
}

/// PostgreSQL URLs may name a Unix socket in their query instead of a host.
fn is_socket_url(url: &url::Url) -> bool {
    url.scheme().starts_with("postgres")
}
