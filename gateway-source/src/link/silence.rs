//! What is done about a connection that says nothing: another one is opened beside it in good time, and taken when it answers.
//!
//! Keeps true: while another way answers, a silent one is left within [`SILENCE`] and a look; while none does, nothing is given up that
//! may yet go on.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::connection::Connection;

/// A way that says nothing for so long is doubted: others are tried beside it. Pings go every 0.6 s.
pub(super) const DOUBT: Duration = Duration::from_millis(1200);
/// It is left after so long, once another one answers, …
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// … and after so long whatever the others do: all is begun anew then.
pub(super) const LONG_SILENCE: Duration = Duration::from_secs(10);
/// The others are tried again after this, where all have failed.
const AGAIN: Duration = Duration::from_millis(400);

/// What to do about a way that has been silent for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    /// It speaks.
    Keep,
    /// Others are being tried, or are ready; it may yet speak.
    Doubt,
    /// Another one is ready.
    Replace,
    GiveUp,
}

fn stance(silence: Duration, another_is_ready: bool) -> Stance {
    if silence >= LONG_SILENCE {
        Stance::GiveUp
    } else if silence >= SILENCE && another_is_ready {
        Stance::Replace
    } else if silence >= DOUBT {
        Stance::Doubt
    } else {
        Stance::Keep
    }
}

/// Opens another connection.
pub(super) type Dialling = Pin<Box<dyn Future<Output = anyhow::Result<Arc<Connection>>> + Send>>;

/// Another connection, opened while the one in use is doubted.
#[derive(Default)]
pub(super) struct Rival {
    dialling: Option<Dialling>,
    ready: Option<Arc<Connection>>,
    again_at: Option<Instant>,
}

/// How a doubt ended.
pub(super) enum Verdict {
    Stay,
    /// To another one, where one is ready.
    Leave(Option<Arc<Connection>>),
}

impl Rival {
    /// Goes on opening the other connection, if that has begun; never returns otherwise.
    pub(super) async fn dialled(&mut self) {
        let Some(dialling) = &mut self.dialling else { return std::future::pending().await };
        let opened = dialling.await;
        self.dialling = None;
        match opened {
            Ok(open) => self.ready = Some(open),
            Err(_) => self.again_at = Some(Instant::now() + AGAIN),
        }
    }

    /// Decides about a connection that has been silent for so long; `dial` opens another one.
    pub(super) fn judge(&mut self, silence: Duration, dial: impl FnOnce() -> Dialling) -> Verdict {
        if self.ready.as_ref().is_some_and(|ready| ready.ended.is_cancelled()) {
            self.ready = None;
        }
        match stance(silence, self.ready.is_some()) {
            Stance::Keep => {
                *self = Self::default();
                Verdict::Stay
            }
            Stance::Doubt => {
                let rests = self.again_at.is_some_and(|again_at| Instant::now() < again_at);
                if self.ready.is_none() && self.dialling.is_none() && !rests {
                    self.dialling = Some(dial());
                }
                Verdict::Stay
            }
            Stance::Replace | Stance::GiveUp => Verdict::Leave(self.ready.take()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::ways::{HEAD_START, LOOK};

    /// What the link promises: the next way within this time.
    const PROMISE: Duration = Duration::from_secs(3);

    /// Plays a way that says nothing from some moment on; answers when it is left. `others`: how long each of the others takes to
    /// answer, the better first; none for one that never does.
    fn left_after(others: &[Option<Duration>]) -> Duration {
        let mut dialled_at = None;
        for look in 1.. {
            // The last it said may be as fresh as can be.
            let silence = LOOK * look;
            let ready = dialled_at.is_some_and(|since: Duration| {
                let answers = (0..).zip(others).filter_map(|(place, takes)| Some(HEAD_START * place + (*takes)?));
                answers.min().is_some_and(|takes| since + takes <= silence)
            });
            match stance(silence, ready) {
                Stance::Keep => dialled_at = None,
                Stance::Doubt => dialled_at = dialled_at.or(Some(silence)),
                Stance::Replace | Stance::GiveUp => return silence,
            }
        }
        unreachable!("it is given up at last")
    }

    #[test]
    fn a_silent_way_is_left_within_three_seconds_while_another_one_answers() {
        // Three round trips of 100, 200 and 400 ms: TCP, TLS and a first answer.
        for trips in [3, 300, 600, 1200].map(Duration::from_millis) {
            let after = left_after(&[Some(trips)]);
            assert!(after <= PROMISE, "{after:?} where opening takes {trips:?}");
            // One that never answers stands before it.
            let after = left_after(&[None, Some(trips)]);
            assert!(after <= PROMISE, "{after:?} past a dead one, where opening takes {trips:?}");
        }
        let after = left_after(&[None, None, Some(Duration::from_millis(300))]);
        assert!(after <= PROMISE, "{after:?} past two dead ones");
    }

    #[test]
    fn nothing_is_given_up_early_while_no_other_way_answers() {
        assert_eq!(left_after(&[None, None]), LONG_SILENCE);
        // Slower than the patience, it is still taken before that ends.
        assert!(left_after(&[Some(Duration::from_secs(4))]) < LONG_SILENCE);
        // A pause that ends is none.
        assert_eq!(stance(DOUBT - Duration::from_millis(1), true), Stance::Keep);
        assert_eq!(stance(SILENCE - Duration::from_millis(1), true), Stance::Doubt);
    }
}
