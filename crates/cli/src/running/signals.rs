//! Ctrl-C and SIGTERM: the first asks to stop in order, the second to stop now.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Result};

/// What the signals asked for so far.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    pub(crate) stop: CancellationToken,
    pub(crate) now: CancellationToken,
}

impl Signals {
    /// Listens from here on; without this, a signal would end the process at once.
    pub(crate) fn listen() -> Result<Self> {
        let cannot = |error: std::io::Error| {
            Failure::new("signals cannot be received", error.to_string(), "check the limits of this process")
        };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let signals = Self { stop: CancellationToken::new(), now: CancellationToken::new() };
        let asked = signals.clone();
        tokio::spawn(async move {
            for token in [asked.stop, asked.now] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(signals)
    }
}
