//! What known mail server software does that a mirror cannot bridge, or bridges visibly. Measured; see `docs/servers.md`.

use understudy_protocol::{messages::Finding, server::ServerRole};

/// Something a mirror on, or of, such a server has to live with.
struct Trait {
    role: ServerRole,
    name: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

/// Measured on Dovecot 2.3.19.
const DOVECOT: [Trait; 5] = [
    Trait {
        role: ServerRole::Standby,
        name: "malformed messages",
        meaning: "NUL, CR CR LF and a bare LF are stored as 0x80, CR LF and CR LF, and the message is set aside as altered; one of 0 \
                  bytes is refused",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "dates",
        meaning: "one before 1970, after 2038 or in the future cannot be kept, and the message is set aside as altered",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "keywords",
        meaning: "one above 255 octets, or with `]` and the like, cannot be written by any command: it is left out and named by \
                  `understudy mailbox verify`",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "folder names",
        meaning: "where folders are kept as `.Work.2026` (Maildir++), a name with a dot is refused and its messages are set aside",
        remedy: "Keep mail there as mdbox, or as Maildir with `LAYOUT=fs`.",
    },
    Trait {
        role: ServerRole::Standby,
        name: "special uses",
        meaning: "they come from its configuration, by name; a client can change them only with `imap_metadata`",
        remedy: "Name the folders' special uses in its configuration as on the primary.",
    },
];

/// Measured on Cyrus 3.6.1.
const CYRUS: [Trait; 9] = [
    Trait {
        role: ServerRole::Primary,
        name: "rights",
        meaning: "a log-in for another user (`proxyservers`) has that user's rights: the server does not keep it from writing, \
                  only Understudy does",
        remedy: "Let this log-in in from the source gateway's address only.",
    },
    Trait {
        role: ServerRole::Primary,
        name: "EMAILID",
        meaning: "it is made of a message's content, so copies are told from others without fetching them again, and their \
                  size is compared too",
        remedy: "",
    },
    Trait {
        role: ServerRole::Primary,
        name: "INBOX",
        meaning: "renaming it ends the session that does (3.6.1 crashes) and may leave an empty folder; what is there afterwards \
                  is mirrored",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "8-bit headers",
        meaning: "octets above 127 in a header are stored as X, and the message is set aside as altered",
        remedy: "Set `munge8bit: no` in imapd.conf: then they are stored as they are.",
    },
    Trait {
        role: ServerRole::Standby,
        name: "malformed messages",
        meaning: "messages with NUL, a bare LF or a malformed header are refused; they are kept, set aside and named by \
                  `understudy mailbox verify`",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "folder names",
        meaning: "! \" % ; < > \\ ` { | } and one of ^ and / cannot be in a name and are written =XX, `a=3Bb` for `a;b`; a name \
                  above 490 octets is refused and its messages are set aside",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "levels",
        meaning: "a level that only holds other folders is a folder here, without messages",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "dates",
        meaning: "the first second of 1970 means now: it is written as the second after it, and named by `understudy mailbox \
                  verify`",
        remedy: "",
    },
    Trait {
        role: ServerRole::Standby,
        name: "keywords",
        meaning: "a folder has room for about 100 different keywords; further ones are left out and named by `understudy \
                  mailbox verify`",
        remedy: "",
    },
];

/// What to know of the software that says this of itself (RFC 2971), in this role.
pub(crate) fn findings(software: &str, role: ServerRole) -> Vec<Finding> {
    let traits = match software {
        _ if software.starts_with("Cyrus") => &CYRUS[..],
        _ if software.starts_with("Dovecot") => &DOVECOT[..],
        _ => &[],
    };
    let known = traits.iter().filter(|known| known.role == role).map(|known| Finding {
        level: "note".to_owned(),
        name: known.name.to_owned(),
        meaning: known.meaning.to_owned(),
        remedy: known.remedy.to_owned(),
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_is_told_what_concerns_it() {
        let names =
            |software, role| findings(software, role).into_iter().map(|finding| finding.name).collect::<Vec<_>>();
        assert_eq!(names("Cyrus IMAPD 3.6.1", ServerRole::Primary), ["rights", "EMAILID", "INBOX"]);
        let cyrus = ["8-bit headers", "malformed messages", "folder names", "levels", "dates", "keywords"];
        assert_eq!(names("Cyrus IMAPD 3.6.1", ServerRole::Standby), cyrus);
        assert!(names("Dovecot", ServerRole::Primary).is_empty());
        let dovecot = ["malformed messages", "dates", "keywords", "folder names", "special uses"];
        assert_eq!(names("Dovecot", ServerRole::Standby), dovecot);
        assert!(names("Another", ServerRole::Standby).is_empty());
    }
}
