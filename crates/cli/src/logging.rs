//! What the roles log, to standard error: text for people, JSON for collectors; `RUST_LOG` chooses how much.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Without `RUST_LOG`: what the system does, not per message, and of libraries only what is wrong.
const DEFAULT_FILTER: &str = "info,sqlx=warn,hyper=warn,h2=warn,reqwest=warn";

/// Whatever `RUST_LOG` says: async-imap writes log-ins to its log, passwords included.
const NEVER: [&str; 2] = ["async_imap=off", "imap_proto=off"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Logs from here on.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let filter = NEVER.iter().filter_map(|never| never.parse().ok()).fold(filter, EnvFilter::add_directive);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !no_color;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
