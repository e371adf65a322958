//! Reads the configuration file: TOML with the line of every key.

use std::{ops::Range, path::Path};

use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    schema::{Key, Kind, ROOT},
    settings::{Origin, Settings, Written},
};

/// Adds what `text`, the content of the file `path`, says.
pub(super) fn read_file(settings: &mut Settings, path: &Path, text: &str) {
    let source = Source { path, text };
    match DeTable::parse(text) {
        Ok(table) => source.table(settings, "", ROOT, table.get_ref()),
        Err(error) => {
            let origin = source.origin(error.span().unwrap_or(0..0));
            // Only the first line: the others repeat the file.
            let why = error.message().lines().next().unwrap_or("unreadable").to_owned();
            settings.problem(Some(origin), format!("not valid TOML: {why}"), "correct this line");
        }
    }
}

struct Source<'s> {
    path: &'s Path,
    text: &'s str,
}

impl Source<'_> {
    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        Origin::File { path: self.path.to_owned(), line: before.matches('\n').count() + 1 }
    }

    fn table(&self, settings: &mut Settings, prefix: &str, keys: &'static [Key], table: &DeTable<'_>) {
        for (name, value) in table.iter() {
            let origin = self.origin(name.span());
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                let name: &str = name.get_ref();
                settings.unknown(origin, name, &without_numbers(prefix), keys);
                continue;
            };
            self.value(settings, join(prefix, key.name), key, value, origin);
        }
    }

    fn value(
        &self,
        settings: &mut Settings,
        path: String,
        key: &'static Key,
        value: &Spanned<DeValue<'_>>,
        origin: Origin,
    ) {
        match (&key.kind, value.get_ref()) {
            (Kind::Table(keys), DeValue::Table(table)) => self.table(settings, &path, keys, table),
            (Kind::Tables(keys), DeValue::Array(array)) => {
                for item in array.iter() {
                    let origin = self.origin(item.span());
                    let DeValue::Table(table) = item.get_ref() else {
                        let what = format!("\"{path}\" lists something that is no table");
                        settings.problem(Some(origin), what, format!("write {}", key.kind.expected()));
                        continue;
                    };
                    let number = settings.begin_table(key.name, origin);
                    self.table(settings, &format!("{path}.{number}"), keys, table);
                }
            }
            (Kind::Table(_) | Kind::Tables(_), _) => settings.problem(
                Some(origin),
                format!("\"{path}\" is a single value"),
                format!("write {}", key.kind.expected()),
            ),
            (kind, value) => settings.take(path, kind, written(value), origin),
        }
    }
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Boolean(flag) => Written::Flag(*flag),
        DeValue::Array(array) => {
            let texts: Option<Vec<String>> =
                array.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            texts.map_or(Written::Other("a list that holds more than texts"), Written::List)
        }
        DeValue::Integer(number) => Written::Number(number.to_string()),
        DeValue::Float(_) => Written::Other("a number"),
        DeValue::Datetime(_) => Written::Other("a date"),
        DeValue::Table(_) => Written::Other("a table"),
    }
}

pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// `server.3.login` as a person writes it: `server.login`.
pub(super) fn without_numbers(path: &str) -> String {
    path.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}
