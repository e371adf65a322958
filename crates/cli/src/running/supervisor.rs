//! Runs roles side by side and starts one again that fell.
//!
//! Keeps true: a role that fails before everything was ready ends the program, since somebody is there to read why; later
//! it comes back by itself, ever more slowly while it keeps falling.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A role that stood for so long has recovered: its next fall is a first one.
const STEADY: Duration = Duration::from_secs(120);
/// How long roles may take to finish what is in flight; killing them is as safe, only less tidy.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

type Life = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
type Start = Box<dyn Fn(CancellationToken) -> anyhow::Result<Life> + Send + Sync>;

/// The roles of this process.
pub(crate) struct Roles {
    tasks: JoinSet<Result<(), (&'static str, anyhow::Error)>>,
    stop: CancellationToken,
    ready: CancellationToken,
    /// The first pause before a fallen role is started again.
    pause: Duration,
}

impl Roles {
    pub(crate) fn new() -> Self {
        Self { tasks: JoinSet::new(), stop: CancellationToken::new(), ready: CancellationToken::new(), pause: PAUSE }
    }

    /// Starts a role; `start` makes each of its lives.
    pub(crate) fn start<F, L>(&mut self, name: &'static str, start: F)
    where
        F: Fn(CancellationToken) -> anyhow::Result<L> + Send + Sync + 'static,
        L: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let start: Start = Box::new(move |stop| Ok(Box::pin(start(stop)?) as Life));
        let (stop, ready, pause) = (self.stop.clone(), self.ready.clone(), self.pause);
        self.tasks
            .spawn(async move { keep_alive(name, &start, stop, ready, pause).await.map_err(|error| (name, error)) });
    }

    /// From now on a role that falls is started again.
    pub(crate) fn is_ready(&self) {
        self.ready.cancel();
    }

    /// The first role that ended for good, and why.
    pub(crate) async fn failed(&mut self) -> (&'static str, anyhow::Error) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(failed))) => return failed,
                Some(Ok(Ok(()))) => {}
                Some(Err(error)) => return ("supervisor", anyhow!(error)),
                None => std::future::pending().await,
            }
        }
    }

    /// Asks all roles to stop and waits for them.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok(Err((name, error))) = ended {
                    warn!(role = name, error = %format!("{error:#}"), "The {name} role stopped with an error");
                }
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            warn!("Some roles did not stop within {} s and are ended", STOP_TIMEOUT.as_secs());
            self.tasks.shutdown().await;
        }
    }
}

async fn keep_alive(
    name: &'static str,
    start: &Start,
    stop: CancellationToken,
    ready: CancellationToken,
    first_pause: Duration,
) -> anyhow::Result<()> {
    let mut pause = first_pause;
    loop {
        let began = Instant::now();
        let outcome = live(start, &stop).await;
        if stop.is_cancelled() {
            return outcome;
        }
        let error = outcome.err().unwrap_or_else(|| anyhow!("it ended although nobody asked it to"));
        if !ready.is_cancelled() {
            return Err(error);
        }
        if began.elapsed() > STEADY {
            pause = first_pause;
        }
        error!(role = name, error = %format!("{error:#}"), "The {name} role fell, starting it again in {} s", pause.as_secs());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
        info!(role = name, "Starting the {name} role again");
    }
}

/// One life of a role, in a task of its own so that a panic in it is an error here. What it spawned hears of its end
/// through its own token.
async fn live(start: &Start, stop: &CancellationToken) -> anyhow::Result<()> {
    let own = stop.child_token();
    let _end = own.clone().drop_guard();
    let mut task = JoinSet::new();
    task.spawn(start(own)?);
    match task.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(anyhow!("it panicked: {error}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_role_that_fails_at_start_is_reported_by_name() {
        let mut roles = Roles::new();
        roles.start("admin", |_| Ok(async { Err(anyhow!("no such port")) }));
        let (name, error) = roles.failed().await;
        assert_eq!((name, error.to_string().as_str()), ("admin", "no such port"));
        roles.stop().await;
    }

    #[tokio::test]
    async fn a_role_that_falls_later_comes_back_until_it_is_stopped() {
        let lives = Arc::new(AtomicU32::new(0));
        let mut roles = Roles::new();
        roles.pause = Duration::from_millis(1);
        roles.is_ready();
        let counter = Arc::clone(&lives);
        roles.start("source", move |stop| {
            let life = counter.fetch_add(1, Ordering::SeqCst);
            Ok(async move {
                match life {
                    0 => Err(anyhow!("cut")),
                    1 => panic!("broken invariant"),
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            })
        });
        while lives.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        roles.stop().await;
        assert_eq!(lives.load(Ordering::SeqCst), 3);
    }
}
