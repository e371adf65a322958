//! What can go wrong with a management interface, and what to do about it.

use std::{io, path::PathBuf};

use understudy_protocol::messages::Trouble;

/// The result of anything asked of a management interface.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a management interface did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the URL of the management interface cannot be used: {reason}")]
    Url { reason: &'static str },
    #[error("the key file {} cannot be used", path.display())]
    KeyFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key has characters that HTTP does not carry")]
    Key,
    #[error("the certificate file {} cannot be used", path.as_ref().map_or_else(|| "of the system".to_owned(), |path| path.display().to_string()))]
    CaFile {
        path: Option<PathBuf>,
        #[source]
        source: io::Error,
    },
    #[error("could not make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("could not reach the management interface at {server}")]
    Unreachable {
        server: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the management interface at {server} was silent for too long")]
    Timeout { server: String },
    #[error("the management interface at {server} refused the key")]
    KeyRefused { server: String },
    #[error("what answers at {server} is no doveadm HTTP API: status {status}")]
    Status { server: String, status: u16 },
    #[error("the management interface broke its protocol: {0}")]
    Answer(&'static str),
    /// One command failed. The exit code is one of `sysexits.h`: 67 no such user, 68 no such mailbox, 75 try again.
    #[error("the management interface refused {command}: {}", meaning(kind, *exit_code))]
    Refused { command: &'static str, kind: String, exit_code: i64 },
}

fn meaning(kind: &str, exit_code: i64) -> String {
    match (kind, exit_code) {
        ("unknownMethod", _) => "it does not know the command".to_owned(),
        (_, 64) => "it does not understand the parameters (64)".to_owned(),
        (_, 67) => "it knows no such user (67)".to_owned(),
        (_, 68) => "there is no such mailbox (68)".to_owned(),
        (_, 75) => "it cannot do it just now (75)".to_owned(),
        (_, 77) => "it may not do it (77)".to_owned(),
        _ => format!("{kind} {exit_code}"),
    }
}

impl Error {
    /// One word for metrics and rules.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url { .. } | Self::KeyFile { .. } | Self::Key | Self::CaFile { .. } => "config",
            Self::Client(_) => "internal",
            Self::Unreachable { .. } => "manage_unreachable",
            Self::Timeout { .. } => "manage_timeout",
            Self::KeyRefused { .. } => "manage_key_refused",
            Self::Status { .. } | Self::Answer(_) => "manage_protocol",
            Self::Refused { .. } => "manage_refused",
        }
    }

    /// The mailbox that a command named is not there.
    #[must_use]
    pub fn is_missing_mailbox(&self) -> bool {
        matches!(self, Self::Refused { exit_code: 68, .. })
    }

    /// What a person can do; `None` where trying again may help by itself.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Url { .. } => Some("Correct `manage.doveadm` of the server."),
            Self::KeyFile { .. } | Self::Key => Some(
                "Put the `doveadm_api_key` of the server into the file that `manage.key_file` names, readable by this gateway.",
            ),
            Self::CaFile { .. } => Some("Name a readable certificate file in the server's `ca_file`."),
            Self::KeyRefused { .. } => {
                Some("Put the server's `doveadm_api_key` into the first line of `manage.key_file`.")
            }
            Self::Status { .. } => {
                Some("See that `manage.doveadm` names an HTTP listener of Dovecot's `service doveadm`.")
            }
            Self::Refused { kind, .. } if kind == "unknownMethod" => {
                Some("Use a Dovecot that offers this command (2.3).")
            }
            Self::Refused { exit_code: 64 | 67 | 77, .. } => {
                Some("See the server's log; its user database must know the mailbox under the same name as the log-in.")
            }
            Self::Client(_)
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Answer(_)
            | Self::Refused { .. } => None,
        }
    }

    /// What to tell a person: `server` is the name people gave it.
    #[must_use]
    pub fn trouble(&self, server: &str) -> Trouble {
        let mut reason = format!("{server}: {self}");
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            reason.push_str(": ");
            reason.push_str(&inner.to_string());
            cause = inner.source();
        }
        let remedy = self.remedy().map_or_else(
            || format!("It is tried again by itself. If it lasts, run `understudy server check {server}`."),
            str::to_owned,
        );
        Trouble { kind: self.kind().to_owned(), reason, remedy, fault: self.remedy().is_some() }
    }
}
