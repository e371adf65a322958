//! The effective configuration as TOML, every value with the place it came from, no secret among them.

use std::fmt::Write;

use understudy_admin_api::{Setting, SettingOrigin};

use super::{
    Loaded,
    schema::{Key, Kind, ROOT},
    settings::Origin,
};

/// The effective configuration, secrets masked: readable as a configuration file again, but for the masks.
pub(crate) fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    table(&mut text, loaded, "", "", ROOT);
    text
}

fn table(text: &mut String, loaded: &Loaded, path: &str, header: &str, keys: &[Key]) {
    let mut lines = String::new();
    for key in keys {
        let path = super::read::join(path, key.name);
        if let Some((value, origin)) = value(loaded, &path, &key.kind) {
            let _ = writeln!(lines, "{:<48} # {origin}", format!("{} = {value}", key.name));
        }
    }
    if !lines.is_empty() {
        if !header.is_empty() {
            let _ = writeln!(text, "\n{header}");
        }
        text.push_str(&lines);
    }
    for key in keys {
        let inner = super::read::join(path, key.name);
        match &key.kind {
            Kind::Table(keys) => {
                let name = super::read::without_numbers(&inner);
                table(text, loaded, &inner, &format!("[{name}]"), keys);
            }
            Kind::Tables(keys) => {
                for number in 0..loaded.settings.tables(key.name).len() {
                    table(text, loaded, &format!("{inner}.{number}"), &format!("[[{}]]", key.name), keys);
                }
            }
            _ => {}
        }
    }
}

/// The same value by value, for the settings screen. Servers have a screen of their own.
pub(crate) fn values(loaded: &Loaded) -> Vec<Setting> {
    let mut values = Vec::new();
    collect(&mut values, loaded, "", ROOT);
    values
}

fn collect(values: &mut Vec<Setting>, loaded: &Loaded, path: &str, keys: &[Key]) {
    for key in keys {
        let inner = super::read::join(path, key.name);
        match &key.kind {
            Kind::Table(keys) => collect(values, loaded, &inner, keys),
            Kind::Tables(_) if inner == "server" => {}
            Kind::Tables(keys) => {
                for number in 0..loaded.settings.tables(key.name).len() {
                    collect(values, loaded, &format!("{inner}.{number}"), keys);
                }
            }
            kind => values.extend(setting(loaded, inner, kind)),
        }
    }
}

fn setting(loaded: &Loaded, key: String, kind: &Kind) -> Option<Setting> {
    let (literal, _) = value(loaded, &key, kind)?;
    let (origin, place) = match loaded.settings.origin(&key) {
        None => (SettingOrigin::Default, None),
        Some(origin @ Origin::File { .. }) => (SettingOrigin::File, Some(origin.to_string())),
        Some(Origin::Environment(name)) => (SettingOrigin::Environment, Some(name.clone())),
    };
    // A TOML literal, as `config show` prints it.
    let table: toml::Table = toml::from_str(&format!("value = {literal}")).ok()?;
    let value = serde_json::to_value(table.get("value")?).ok()?;
    Some(Setting { key, value, origin, place })
}

fn value(loaded: &Loaded, path: &str, kind: &Kind) -> Option<(String, String)> {
    let settings = &loaded.settings;
    let Some(origin) = settings.origin(path) else {
        return default(loaded, path).map(|value| (value, "default".to_owned()));
    };
    let value = match kind {
        Kind::Flag => settings.flag(path).to_string(),
        Kind::Urls(_) | Kind::Words => {
            let items: Vec<String> = settings.list(path)?.iter().map(|item| quote(&mask_password(item))).collect();
            format!("[{}]", items.join(", "))
        }
        Kind::Number => settings.text(path)?.to_owned(),
        Kind::Secret => quote("***"),
        Kind::Path => quote(&super::path(settings, path)?.to_string_lossy()),
        Kind::SecretUrl(_) | Kind::Url(_) => quote(&mask_password(settings.text(path)?)),
        _ => quote(settings.text(path)?),
    };
    Some((value, origin.to_string()))
}

fn default(loaded: &Loaded, path: &str) -> Option<String> {
    let config = &loaded.config;
    match path {
        "data_dir" => Some(quote(&config.data_dir.to_string_lossy())),
        "admin.listen" => Some(quote(&config.admin_listen.to_string())),
        "recovery.listen" => Some(quote(&config.recovery_listen.to_string())),
        "recovery.plaintext" | "source.plaintext" | "nginx.plaintext" => Some("false".into()),
        "brake.share" => Some(quote("50%")),
        "brake.messages" => Some(config.brake.messages.to_string()),
        "brake.within" => Some(quote("10m")),
        "verify.every" => Some(quote("24h")),
        "link.certificate_life" => Some(quote("90d")),
        "content.store" => Some(quote("file")),
        "content.keep" | "content.scrub" => Some(quote("30d")),
        "content.sweep" => Some(quote("6h")),
        "content.scrub_rate" => Some("8".to_owned()),
        "source.journal_limit" => Some(quote("20 GB")),
        _ => None,
    }
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The URL with its password hidden, wherever a URL of this kind may carry one.
pub(crate) fn mask_password(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return "***".to_owned() };
    let in_query = parsed.query_pairs().any(|(name, _)| name == "password");
    if parsed.password().is_none() && !in_query {
        return url.to_owned();
    }
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    if in_query {
        let pairs: Vec<(String, String)> = parsed
            .query_pairs()
            .map(|(name, value)| {
                let value = if name == "password" { "***".into() } else { value.into_owned() };
                (name.into_owned(), value)
            })
            .collect();
        parsed.query_pairs_mut().clear().extend_pairs(pairs);
    }
    parsed.to_string()
}
