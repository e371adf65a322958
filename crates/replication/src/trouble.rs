//! Errors as a person needs them: why, and what to do.

use understudy_imap_session::{Error, Verdict};
use understudy_protocol::messages::Trouble;

/// What to tell a person about a failed conversation with `server`. A fault needs that person; anything else is tried
/// again and may pass.
#[must_use]
pub fn explain(server: &str, error: &Error) -> Trouble {
    let mut reason = format!("{server}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        reason.push_str(": ");
        reason.push_str(&inner.to_string());
        cause = inner.source();
    }
    if let Some(text) = error.server_text().filter(|text| !text.is_empty()) {
        reason.push_str(&format!("; it said: {text}"));
    }
    let (fault, remedy) = match error.verdict() {
        Verdict::Fault { remedy } => (true, remedy),
        Verdict::Retry | Verdict::Reconcile => {
            (false, format!("It is tried again by itself. If it lasts, run `understudy server check {server}`."))
        }
    };
    Trouble { kind: error.kind().to_owned(), reason, remedy, fault }
}
