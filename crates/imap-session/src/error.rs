//! What can go wrong in a conversation, and what to do about it.

use std::{fmt, io, path::PathBuf};

/// The result of anything said to a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A response code in square brackets (RFC 5530): `[OVERQUOTA]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Upper-cased: `OVERQUOTA`, `APPENDUID`.
    pub name: String,
    /// What follows the name, as sent; often empty.
    pub arguments: String,
}

/// Why a conversation failed.
///
/// The texts may be logged: they hold neither message data nor credentials, nor anyone's address or folder names. What
/// the server itself said may name these; it is in [`Error::server_text`], for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the server address {url:?} cannot be used: {reason}")]
    Address { url: String, reason: &'static str },
    #[error("the certificate file {} cannot be used", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the password file {} cannot be used", path.display())]
    PasswordFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the log-in is not complete: {reason}")]
    LoginConfig { reason: &'static str },
    #[error("this address cannot be logged in with a {what}")]
    UnsafeAddress { what: &'static str },
    #[error("the password file {} has no line for this address", path.display())]
    NoPassword { path: PathBuf },
    #[error("could not reach {server}")]
    Unreachable {
        server: String,
        #[source]
        source: io::Error,
    },
    #[error("the certificate of {server} was not accepted")]
    Certificate {
        server: String,
        #[source]
        source: io::Error,
    },
    #[error("the server refused the log-in{}", coded(code.as_ref()))]
    LoginRefused { code: Option<Code>, text: String },
    #[error("the server knows no such user")]
    NoSuchUser,
    #[error("the server cannot log anyone in just now")]
    LoginUnavailable,
    #[error("the server does not offer {0}")]
    Unsupported(&'static str),
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// A tagged NO.
    #[error("the server refused {command}{}", coded(code.as_ref()))]
    Refused {
        command: &'static str,
        code: Option<Code>,
        text: String,
        /// How many messages of an append were taken before this refusal; 0 for everything else.
        done: usize,
    },
    /// A tagged BAD. After an APPEND the connection has been closed.
    #[error("the server did not understand {command}")]
    Bad { command: &'static str, text: String },
    #[error("the server was silent for too long")]
    Timeout,
    #[error("the server ended the connection")]
    Closed { text: Option<String> },
    #[error("the connection failed")]
    Broken(#[source] io::Error),
    /// An earlier call was dropped or failed half-way, so nothing on this connection can be trusted.
    #[error("an earlier command on this connection did not finish")]
    Interrupted,
    #[error("a message could not be taken in")]
    Sink(#[source] io::Error),
    #[error("the content of a message to append could not be read")]
    Source(#[source] io::Error),
}

/// What a loop does about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait, open a new session, go on from the same position.
    Retry,
    /// The position or a name is no longer valid: look at the whole again.
    Reconcile,
    /// A person must act.
    Fault { remedy: String },
}

fn coded(code: Option<&Code>) -> String {
    code.map_or_else(String::new, |code| format!(" [{}]", code.name))
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.arguments.is_empty() { f.write_str(&self.name) } else { write!(f, "{} {}", self.name, self.arguments) }
    }
}

impl Error {
    /// The response code of a refusal, upper-cased.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } | Self::LoginRefused { code, .. } => {
                code.as_ref().map(|code| code.name.as_str())
            }
            _ => None,
        }
    }

    /// The server's own words, for a person: they may name folders and addresses.
    #[must_use]
    pub fn server_text(&self) -> Option<&str> {
        match self {
            Self::Refused { text, .. } | Self::LoginRefused { text, .. } | Self::Bad { text, .. } => Some(text),
            Self::Closed { text } => text.as_deref(),
            _ => None,
        }
    }

    /// One word for metrics and rules.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Address { .. }
            | Self::CaFile { .. }
            | Self::PasswordFile { .. }
            | Self::LoginConfig { .. }
            | Self::UnsafeAddress { .. }
            | Self::NoPassword { .. } => "config",
            Self::Unreachable { .. } | Self::LoginUnavailable => "unreachable",
            Self::Certificate { .. } => "certificate",
            Self::LoginRefused { .. } => "login_refused",
            Self::NoSuchUser => "no_such_user",
            Self::Unsupported(_) | Self::Protocol(_) => "protocol",
            Self::Refused { .. } => "refused",
            Self::Bad { .. } => "bad",
            Self::Timeout => "timeout",
            Self::Closed { .. } | Self::Broken(_) | Self::Interrupted => "closed",
            Self::Sink(_) | Self::Source(_) => "sink",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let remedy = match self {
            Self::Refused { code, .. } => return refused(code.as_ref()),
            Self::Unreachable { .. }
            | Self::LoginUnavailable
            | Self::Protocol(_)
            | Self::Timeout
            | Self::Closed { .. }
            | Self::Broken(_)
            | Self::Interrupted
            | Self::Sink(_)
            | Self::Source(_) => return Verdict::Retry,
            Self::Address { .. } => "correct the server's address",
            Self::CaFile { .. } => "put the certificate authority's PEM file where the server's `ca_file` says",
            Self::PasswordFile { .. } => {
                "put the password file where the server's `password_file` says, readable by this gateway"
            }
            Self::LoginConfig { .. } => "complete the server's `login`",
            Self::UnsafeAddress { .. } => "protect this mailbox through a server entry with another way to log in",
            Self::NoPassword { .. } => "add a line `address:password` for this mailbox to the password file",
            Self::Certificate { .. } => {
                "renew the server's certificate, or name its certificate authority in `ca_file`"
            }
            Self::LoginRefused { .. } => {
                "check the gateway's user and password on the server, and that it may open this mailbox"
            }
            Self::NoSuchUser => "create the mailbox on the server, or stop protecting it",
            Self::Unsupported(_) => "use a server that offers it, or another policy",
            Self::Bad { .. } => "report this server's version: it does not take a command it should",
        };
        Verdict::Fault { remedy: remedy.to_owned() }
    }
}

/// RFC 5530 §3 says what each code means.
fn refused(code: Option<&Code>) -> Verdict {
    let remedy = match code.map(|code| code.name.as_str()) {
        Some("NONEXISTENT" | "TRYCREATE" | "ALREADYEXISTS" | "UIDNOTSTICKY" | "BADEVENT") => return Verdict::Reconcile,
        Some("OVERQUOTA") => "give the mailbox more space on this server",
        Some("NOPERM") => "let the gateway's user read and write this mailbox",
        Some("LIMIT") => "raise the server's limit that this mailbox exceeds",
        Some("CONTACTADMIN") => "see the server's own message about this mailbox",
        Some("CANNOT") => "see the server's own message: it can never do what was asked",
        Some("CORRUPTION") => "repair the mailbox on the server",
        _ => return Verdict::Retry,
    };
    Verdict::Fault { remedy: remedy.to_owned() }
}
