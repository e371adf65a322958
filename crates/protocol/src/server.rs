//! A mail server as both gateways know it. Carries where a secret lies, never the secret.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How to reach and enter one mail server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub name: String,
    pub role: ServerRole,
    /// `imaps://`, `imap://` (STARTTLS required) or `imap+insecure://` (loopback only).
    pub imap: String,
    /// Trust only these certificate authorities (PEM); a path on the gateway that talks to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    pub login: LoginConfig,
    /// A primary's log-in that may write, for the way home; where there is none, `login` is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_login: Option<LoginConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lmtp: Option<String>,
    /// Where users hand in mail to send: `smtp://` (STARTTLS), `smtps://`. For front doors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manage: Option<Manage>,
    /// Whose mailbox checks of the server's health use; any protected one when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// What a mail server is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerRole {
    Primary,
    Standby,
}

/// How one log-in opens every user's mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginConfig {
    #[serde(rename = "as")]
    pub method: LoginMethod,
    /// The master user, or the SASL authentication identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password, first line of this file; with `each`, lines of `address:password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How a master log-in is spelled; `{user}` and `{master}` are filled in. Default `{user}*{master}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

/// The kinds of log-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginMethod {
    /// A master user: `ana*understudy` with the master's password.
    Master,
    /// SASL PLAIN with an authorisation identity (RFC 4616).
    Authzid,
    /// Every user's own password.
    Each,
}

/// A mailbox that is there for checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    pub address: String,
    /// A message may be appended there and removed again.
    #[serde(default)]
    pub write: bool,
    /// The user's own password, first line of this file: shows whether users reach the server past the front doors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// A server's management interface: a standby can keep the primary's UIDs through it, and a primary name its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manage {
    /// Base URL of Dovecot's doveadm HTTP API.
    pub doveadm: String,
    /// The API key, first line of this file.
    pub key_file: PathBuf,
}
