//! Every configuration key there is: its place, what it takes, and one line about it.
//!
//! Keeps true: a key that is not here is refused, wherever it was written.
//! Not here: reading values (`read`, `environment`), what they mean together (`super`).

/// One key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// `[name]`
    Table(&'static [Key]),
    /// `[[name]]`
    Tables(&'static [Key]),
    Text,
    /// A file or folder; relative ones count from the folder of the configuration file.
    Path,
    Flag,
    /// `ADDRESS:PORT` to listen on; port 0 lets the system choose.
    Listen,
    /// A URL with one of these schemes.
    Url(&'static [&'static str]),
    /// One URL or several.
    Urls(&'static [&'static str]),
    /// A URL whose password is masked wherever it is shown.
    SecretUrl(&'static [&'static str]),
    /// Several words.
    Words,
    Choice(&'static [&'static str]),
    /// A whole number.
    Number,
    /// A part of something in per cent, or `off`.
    Share,
    /// Bytes, such as `20 GB`.
    Size,
    /// Such as `10m`, or `off` where the flag says so.
    Duration {
        or_off: bool,
    },
    /// Only from the environment: a file that holds it would be a secret lying in the open.
    Secret,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

const POSTGRES: Kind = Kind::SecretUrl(&["postgres", "postgresql"]);

/// The whole file.
pub(crate) static ROOT: &[Key] = &[
    key("data_dir", Kind::Path),
    key(
        "database",
        Kind::Table(&[
            key("url", POSTGRES),
            key("url_file", Kind::Path),
            key("source_url", POSTGRES),
            key("source_url_file", Kind::Path),
        ]),
    ),
    key("admin", Kind::Table(&[key("listen", Kind::Listen), key("public_url", Kind::Url(&["http", "https"]))])),
    key(
        "recovery",
        Kind::Table(&[
            key("listen", Kind::Listen),
            key("url", Kind::Urls(&["https"])),
            key("plaintext", Kind::Flag),
            key("hooks", Kind::Path),
            key("metrics_listen", Kind::Listen),
        ]),
    ),
    key(
        "source",
        Kind::Table(&[
            key("recovery_url", Kind::Urls(&["http", "https"])),
            key("plaintext", Kind::Flag),
            key("capability_mask", Kind::Words),
            key("journal_limit", Kind::Size),
            key("metrics_listen", Kind::Listen),
        ]),
    ),
    key(
        "brake",
        Kind::Table(&[
            key("share", Kind::Share),
            key("messages", Kind::Number),
            key("within", Kind::Duration { or_off: false }),
        ]),
    ),
    key("verify", Kind::Table(&[key("every", Kind::Duration { or_off: true })])),
    key(
        "content",
        Kind::Table(&[
            key("store", Kind::Text),
            key("endpoint", Kind::Url(&["http", "https"])),
            key("region", Kind::Text),
            key("access_key", Kind::Text),
            key("secret_key_file", Kind::Path),
            key("secret_key", Kind::Secret),
            key("key_file", Kind::Path),
            key("keep", Kind::Duration { or_off: false }),
            key("sweep", Kind::Duration { or_off: false }),
            key("scrub", Kind::Duration { or_off: true }),
            key("scrub_rate", Kind::Number),
        ]),
    ),
    key(
        "smtp",
        Kind::Table(&[
            key("relays", Kind::Urls(&["smtp", "smtps"])),
            key("user", Kind::Text),
            key("password_file", Kind::Path),
            key("ca_file", Kind::Path),
            key("from", Kind::Text),
            key("administrators", Kind::Words),
        ]),
    ),
    key(
        "webhook",
        Kind::Tables(&[
            key("name", Kind::Text),
            key("url", Kind::Url(&["https", "http"])),
            key("secret_file", Kind::Path),
            key("topics", Kind::Words),
            key("allow", Kind::Words),
        ]),
    ),
    key(
        "link",
        Kind::Table(&[
            key("certificate_life", Kind::Duration { or_off: false }),
            key("secret_file", Kind::Path),
            key("secret", Kind::Secret),
        ]),
    ),
    key("server", Kind::Tables(SERVER)),
    key(
        "routes",
        Kind::Table(&[
            key("file", Kind::Path),
            key("database_socket", Kind::Path),
            key("database_password_file", Kind::Path),
            key("primary_from", Kind::Words),
            key("bypass_from", Kind::Words),
            key("mail_exchangers", Kind::Urls(&["smtp"])),
        ]),
    ),
    key("nginx", Kind::Table(&[key("key_file", Kind::Path), key("plaintext", Kind::Flag)])),
    key("domain", Kind::Tables(&[key("name", Kind::Text), key("primary", Kind::Text)])),
    key(
        "front_door",
        Kind::Tables(&[
            key("name", Kind::Text),
            key("kind", Kind::Choice(&["dovecot", "nginx"])),
            key("doveadm", Kind::Url(&["http", "https"])),
            key("key_file", Kind::Path),
            key("ca_file", Kind::Path),
            key("source", Kind::Text),
            key("imap", Kind::Url(&["imaps", "imap", "imap+insecure"])),
            key("lmtp", Kind::Url(&["lmtp"])),
            key("lmtp_fallback", Kind::Url(&["lmtp"])),
        ]),
    ),
];

/// How one log-in opens every mailbox of a server.
static LOGIN: &[Key] = &[
    key("as", Kind::Choice(&["master", "authzid", "each"])),
    key("user", Kind::Text),
    key("password_file", Kind::Path),
    key("form", Kind::Text),
];

/// One `[[server]]`.
static SERVER: &[Key] = &[
    key("name", Kind::Text),
    key("role", Kind::Choice(&["primary", "standby"])),
    key("imap", Kind::Url(&["imaps", "imap", "imap+insecure"])),
    key("ca_file", Kind::Path),
    key("login", Kind::Table(LOGIN)),
    key("return_login", Kind::Table(LOGIN)),
    key("lmtp", Kind::Url(&["lmtp", "lmtps"])),
    key("submission", Kind::Url(&["smtp", "smtps"])),
    key("manage", Kind::Table(&[key("doveadm", Kind::Url(&["http", "https"])), key("key_file", Kind::Path)])),
    key(
        "canary",
        Kind::Table(&[key("address", Kind::Text), key("write", Kind::Flag), key("password_file", Kind::Path)]),
    ),
];

impl Kind {
    /// What belongs there, for "… expected".
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Table(_) => "a table".into(),
            Self::Tables(_) => "a list of tables, each headed like `[[server]]`".into(),
            Self::Text => "a text in quotes".into(),
            Self::Path => "a path in quotes".into(),
            Self::Flag => "true or false".into(),
            Self::Listen => "an address and a port, such as \"127.0.0.1:8080\"".into(),
            Self::Url(schemes) | Self::SecretUrl(schemes) => format!("a URL that starts with {}", starts(schemes)),
            Self::Urls(schemes) => format!("one URL or a list of URLs that start with {}", starts(schemes)),
            Self::Words => "a list of texts, such as [\"NOTIFY\"]".into(),
            Self::Choice(choices) => format!("one of {}", quoted(choices)),
            Self::Number => "a whole number".into(),
            Self::Size => "a size, such as \"20 GB\"".into(),
            Self::Share => "a part in per cent, such as \"50%\", or \"off\"".into(),
            Self::Duration { or_off: true } => "a duration, such as \"24h\", or \"off\"".into(),
            Self::Duration { or_off: false } => "a duration, such as \"10m\"".into(),
            Self::Secret => "an environment variable".into(),
        }
    }
}

fn starts(schemes: &[&str]) -> String {
    schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ")
}

/// `"a", "b", "c"`
pub(crate) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The name nearest to what was written, if one is near enough to have been meant.
pub(crate) fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    const NEAR_ENOUGH: f64 = 0.55;
    let written = written.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&written, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH)
        .min_by(|(a, _), (b, _)| b.total_cmp(a))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not_guessed() {
        let names = ["listen", "public_url"];
        assert_eq!(nearest("lisen", names), Some("listen"));
        assert_eq!(nearest("Listen", names), Some("listen"));
        assert_eq!(nearest("publicurl", names), Some("public_url"));
        assert_eq!(nearest("colour", names), None);
    }
}
