//! The `[[front_door]]` and `[[domain]]` tables and the networks of `[routes]`.
//!
//! Keeps true: a network that comes out of here is one that PostgreSQL takes; a Dovecot door can be told to cut.

use std::net::IpAddr;

use understudy_database::front_door::{Configured, Domain, FrontDoor, FrontDoorKind};
use url::Url;

use super::{path, settings::Settings};

/// The port of SMTP between servers (RFC 5321, section 4.5.4.2).
const SMTP: u16 = 25;
/// What most servers use for LMTP, which has none of its own (RFC 2033, section 5).
const LMTP: u16 = 24;

/// Where a Dovecot proxy takes incoming mail.
#[derive(Debug)]
pub(crate) struct MailDoor {
    /// That of the front door.
    pub(crate) name: String,
    pub(crate) lmtp: (String, u16),
    /// Who takes by the last routes what it puts off.
    pub(crate) fallback: Option<(String, u16)>,
}

pub(super) fn configured(settings: &mut Settings) -> Configured {
    Configured {
        doors: doors(settings),
        domains: domains(settings),
        primary_from: networks(settings, "routes.primary_from"),
        bypass_from: networks(settings, "routes.bypass_from"),
    }
}

fn doors(settings: &mut Settings) -> Vec<FrontDoor> {
    let mut doors: Vec<FrontDoor> = Vec::new();
    for (number, origin) in settings.tables("front_door").to_vec().into_iter().enumerate() {
        let key = |name: &str| format!("front_door.{number}.{name}");
        let text = |settings: &Settings, name: &str| settings.text(&key(name)).map(str::to_owned);
        let file = |settings: &Settings, name: &str| path(settings, &key(name)).map(|path| path.display().to_string());
        let (Some(name), Some(kind)) = (text(settings, "name"), text(settings, "kind")) else {
            let what = "this [[front_door]] has no \"name\" or no \"kind\"";
            settings.problem(Some(origin), what, "add both; kind is \"dovecot\" or \"nginx\"");
            continue;
        };
        if doors.iter().any(|earlier| earlier.name == name) {
            let what = format!("a second front door is named \"{name}\"");
            settings.problem(Some(origin), what, "give every [[front_door]] a name of its own");
            continue;
        }
        let (doveadm, key_file) = (text(settings, "doveadm"), file(settings, "key_file"));
        let source = text(settings, "source");
        if let Some(source) = source.as_deref().filter(|source| source.parse::<IpAddr>().is_err()) {
            let what = format!("\"front_door.source\" {source} is no IP address");
            settings.problem(Some(origin.clone()), what, "name the address from which nginx reaches the mail servers");
        }
        if kind == "dovecot" && (doveadm.is_none() || key_file.is_none()) {
            let what = format!("the front door \"{name}\" has no \"doveadm\" or no \"key_file\"");
            let remedy = "add both: without its management interface, sessions cannot be cut";
            settings.problem(Some(origin), what, remedy);
            continue;
        }
        doors.push(FrontDoor {
            name,
            kind: if kind == "nginx" { FrontDoorKind::Nginx } else { FrontDoorKind::Dovecot },
            doveadm: doveadm.zip(key_file),
            ca_file: file(settings, "ca_file"),
            source,
            imap: text(settings, "imap"),
        });
    }
    doors
}

/// The front doors that say where they take mail.
pub(super) fn mail_doors(settings: &mut Settings) -> Vec<MailDoor> {
    let mut doors = Vec::new();
    for (number, origin) in settings.tables("front_door").to_vec().into_iter().enumerate() {
        let text = |key: &str| settings.text(&format!("front_door.{number}.{key}")).map(str::to_owned);
        let (lmtp, fallback) = (text("lmtp"), text("lmtp_fallback"));
        let Some(name) = text("name").filter(|_| lmtp.is_some() || fallback.is_some()) else { continue };
        let at = |url: &Option<String>| place(url.as_deref()?, LMTP);
        let (what, remedy) = match (at(&lmtp), at(&fallback)) {
            _ if text("kind").as_deref() != Some("dovecot") => {
                ("is no Dovecot proxy and takes no mail", "take `lmtp` and `lmtp_fallback` away")
            }
            (None, _) => ("has no `lmtp` with a host", "write it like lmtp://imap-1.example.org:24"),
            (_, None) if fallback.is_some() => {
                ("has an `lmtp_fallback` without a host", "write it like lmtp://imap-1.example.org:2424")
            }
            (Some(lmtp), fallback) => {
                doors.push(MailDoor { name, lmtp, fallback });
                continue;
            }
        };
        settings.problem(Some(origin), format!("the front door \"{name}\" {what}"), remedy);
    }
    doors
}

/// Host and port that a URL names.
fn place(url: &str, port: u16) -> Option<(String, u16)> {
    let url = Url::parse(url).ok()?;
    Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port().unwrap_or(port)))
}

/// Host and port of everybody who is asked to try deferred mail again.
pub(super) fn mail_exchangers(settings: &mut Settings) -> Vec<(String, u16)> {
    let written = settings.list("routes.mail_exchangers").map(<[String]>::to_vec).unwrap_or_default();
    let mut exchangers = Vec::new();
    for url in &written {
        if let Some(place) = place(url, SMTP) {
            exchangers.push(place);
        } else {
            let origin = settings.origin("routes.mail_exchangers").cloned();
            let what = format!("\"routes.mail_exchangers\" names {url}, which has no host");
            settings.problem(origin, what, "write it like smtp://mx.example.org");
        }
    }
    exchangers
}

fn domains(settings: &mut Settings) -> Vec<Domain> {
    let mut domains = Vec::new();
    for (number, origin) in settings.tables("domain").to_vec().into_iter().enumerate() {
        let Some(name) = settings.text(&format!("domain.{number}.name")).map(str::to_lowercase) else {
            settings.problem(Some(origin), "this [[domain]] has no \"name\"", "add `name = \"example.org\"` to it");
            continue;
        };
        let primary = settings.text(&format!("domain.{number}.primary")).map(str::to_owned);
        domains.push(Domain { name, primary });
    }
    domains
}

fn networks(settings: &mut Settings, key: &str) -> Vec<String> {
    let written = settings.list(key).map(<[String]>::to_vec).unwrap_or_default();
    for network in &written {
        if !is_network(network) {
            let origin = settings.origin(key).cloned();
            let what = format!("\"{key}\" names {network}, which is no network");
            settings.problem(origin, what, "write addresses or networks, such as 192.0.2.7 or 192.0.2.0/24");
        }
    }
    written
}

fn is_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').unzip();
    let Ok(address) = address.unwrap_or(text).parse::<IpAddr>() else { return false };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= longest))
}

#[cfg(test)]
mod tests {
    use super::is_network;

    #[test]
    fn a_network_is_an_address_with_or_without_a_length() {
        for network in ["192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "::1"] {
            assert!(is_network(network), "{network}");
        }
        for other in ["192.0.2.0/33", "example.org", "192.0.2.0/", "/8", ""] {
            assert!(!is_network(other), "{other}");
        }
    }
}
