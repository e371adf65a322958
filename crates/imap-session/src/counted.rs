//! The gauge of open sessions.
//!
//! Keeps true: a session counts from when it is named until it is dropped, however that comes.

use metrics::Gauge;

/// One session in `understudy_imap_connections{server}`.
pub(crate) struct Counted {
    gauge: Gauge,
}

impl Counted {
    pub(crate) fn with(server: &str) -> Self {
        let gauge = metrics::gauge!("understudy_imap_connections", "server" => server.to_owned());
        gauge.increment(1);
        Self { gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.decrement(1);
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}
