//! What the link may cost this machine at once, whatever the other side does.
//!
//! Keeps true: connections, requests under way and the memory they hold are bounded together, not each by itself; an honest source gateway
//! never meets these bounds.
//! Not here: the bounds of one shipment (`ingest`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use understudy_protocol::codec::MAX_FRAME_BYTES;

/// Connections that are let in. A source gateway has one, and some that it tries; dead ones are noticed within 20 s.
const CONNECTIONS: usize = 64;
/// Shipments under way; a source gateway has eight. Others wait, unread.
const SHIPMENTS: usize = 64;
/// Messages being read that are no stream, at most 16 MiB each. Others wait, unread.
const MESSAGES: usize = 32;
/// Bytes of frames held of shipments that have not come whole: eight of the longest, each alone in its shipment, with what comes with them.
const FRAMES: usize = 8 * (MAX_FRAME_BYTES + (1 << 20));

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    connections: Arc<Semaphore>,
    shipments: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    frames: Arc<AtomicUsize>,
}

impl Default for Bounds {
    fn default() -> Self {
        let so_many = |count| Arc::new(Semaphore::new(count));
        Self {
            connections: so_many(CONNECTIONS),
            shipments: so_many(SHIPMENTS),
            messages: so_many(MESSAGES),
            frames: Arc::default(),
        }
    }
}

impl Bounds {
    /// One more connection; none where there are enough.
    pub(crate) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Waits until a shipment may be read.
    pub(crate) async fn shipment(&self) -> Option<OwnedSemaphorePermit> {
        self.shipments.clone().acquire_owned().await.ok()
    }

    /// Waits until a message may be read.
    pub(crate) async fn message(&self) -> Option<OwnedSemaphorePermit> {
        self.messages.clone().acquire_owned().await.ok()
    }

    /// Frames of one shipment: none yet.
    pub(crate) fn frames(&self) -> HeldFrames {
        HeldFrames { all: self.frames.clone(), held: 0 }
    }
}

/// All shipments together hold more than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all shipments under way hold {FRAMES} bytes of frames, which is as much as they may: try again")]
pub(crate) struct TooMuchHeld;

/// What one shipment holds in memory, until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldFrames {
    all: Arc<AtomicUsize>,
    held: usize,
}

impl HeldFrames {
    /// It holds so many bytes now.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), TooMuchHeld> {
        if bytes <= self.held {
            self.all.fetch_sub(self.held - bytes, Relaxed);
        } else {
            let more = bytes - self.held;
            let fits = |all: usize| all.checked_add(more).filter(|sum| *sum <= FRAMES);
            self.all.fetch_update(Relaxed, Relaxed, fits).map_err(|_| TooMuchHeld)?;
        }
        self.held = bytes;
        Ok(())
    }
}

impl Drop for HeldFrames {
    fn drop(&mut self) {
        self.all.fetch_sub(self.held, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shipments_together_hold_so_much_and_give_it_back() {
        let bounds = Bounds::default();
        // As many as a source gateway sends at once, with the longest frame each.
        let mut honest: Vec<HeldFrames> = (0..8).map(|_| bounds.frames()).collect();
        assert!(honest.iter_mut().all(|one| one.hold(MAX_FRAME_BYTES + (1 << 20)) == Ok(())));
        let mut another = bounds.frames();
        assert_eq!(another.hold(1), Err(TooMuchHeld));
        honest[0].hold(MAX_FRAME_BYTES).unwrap();
        assert_eq!(another.hold(1), Ok(()));
        assert_eq!(another.hold(usize::MAX), Err(TooMuchHeld));
        assert_eq!(another.held, 1, "what was refused is not held");
        drop((honest, another));
        assert_eq!(bounds.frames.load(Relaxed), 0);
    }

    #[test]
    fn connections_are_counted_while_they_stand() {
        let bounds = Bounds::default();
        let mut open: Vec<_> = (0..CONNECTIONS).map(|_| bounds.connection().unwrap()).collect();
        assert!(bounds.connection().is_none());
        open.pop();
        assert!(bounds.connection().is_some());
    }
}
