//! Reads settings from the environment: `UNDERSTUDY__ADMIN__LISTEN` is `[admin] listen`.
//!
//! Lists are separated by commas; `UNDERSTUDY__SERVER__0__NAME` is the first `[[server]]`, and the next free number adds one.

use super::{
    read::{join, without_numbers},
    schema::{Key, Kind, ROOT},
    settings::{Origin, Settings, Written},
};

/// What the variables that configure Understudy begin with. `UNDERSTUDY_URL` and its like do not.
const PREFIX: &str = "UNDERSTUDY__";

/// Adds what the environment says; it wins over what is there.
pub(super) fn read_environment(settings: &mut Settings, variables: impl IntoIterator<Item = (String, String)>) {
    let mut variables: Vec<(String, String)> =
        variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        let origin = Origin::Environment(name.clone());
        let lower = name[PREFIX.len()..].to_lowercase();
        let parts: Vec<&str> = lower.split("__").collect();
        descend(settings, "", ROOT, &parts, value, origin);
    }
}

fn descend(settings: &mut Settings, prefix: &str, keys: &'static [Key], parts: &[&str], value: String, origin: Origin) {
    let Some((name, rest)) = parts.split_first() else { return };
    let Some(key) = keys.iter().find(|key| key.name == *name) else {
        return settings.unknown(origin, name, &without_numbers(prefix), keys);
    };
    let path = join(prefix, name);
    match (&key.kind, rest) {
        (Kind::Table(keys), [_, ..]) => descend(settings, &path, keys, rest, value, origin),
        (Kind::Tables(keys), [number, rest @ ..]) if !rest.is_empty() => {
            let Some(number) = numbered(settings, key.name, number, &origin) else {
                let what = format!("\"{number}\" is not the number of a [[{name}]]");
                let there = settings.tables(name).len();
                let remedy = format!("there are {there}; the next one is {there}");
                return settings.problem(Some(origin), what, remedy);
            };
            descend(settings, &format!("{path}.{number}"), keys, rest, value, origin);
        }
        (Kind::Table(keys) | Kind::Tables(keys), _) => {
            let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
            settings.problem(
                Some(origin),
                format!("\"{path}\" is a table and takes no value of its own"),
                format!("name one of its keys: {}", names.join(", ")),
            );
        }
        (_, [surplus, ..]) => {
            let what = format!("\"{path}\" is a single value and has no \"{surplus}\"");
            settings.problem(Some(origin), what, format!("write {}", key.kind.expected()));
        }
        (kind, []) => settings.take(path, kind, written(kind, value), origin),
    }
}

/// The place among the tables of a name that was meant; the next free one makes a new table.
fn numbered(settings: &mut Settings, name: &'static str, number: &str, origin: &Origin) -> Option<usize> {
    let number: usize = number.parse().ok()?;
    let there = settings.tables(name).len();
    if number == there {
        settings.begin_table(name, origin.clone());
    }
    (number <= there).then_some(number)
}

fn written(kind: &Kind, value: String) -> Written {
    match kind {
        Kind::Flag => match value.to_lowercase().as_str() {
            "true" | "1" | "yes" => Written::Flag(true),
            "false" | "0" | "no" => Written::Flag(false),
            _ => Written::Text(value),
        },
        Kind::Urls(_) | Kind::Words => {
            Written::List(value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }
        _ => Written::Text(value),
    }
}
