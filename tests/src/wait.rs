//! Waiting for a condition, with a deadline and a name for what was waited for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until `done` says yes.
pub async fn until<F>(what: &str, patience: Duration, mut done: F) -> Result<()>
where
    F: AsyncFnMut() -> Result<bool>,
{
    let deadline = Instant::now() + patience;
    loop {
        // Asked once more after the deadline: a machine that stood still meanwhile has had no time.
        let is_late = Instant::now() > deadline;
        if done().await? {
            return Ok(());
        }
        if is_late {
            bail!("waited {} s until {what}", patience.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same where nothing else runs.
pub fn until_blocking(what: &str, patience: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let is_late = Instant::now() > deadline;
        if done()? {
            return Ok(());
        }
        if is_late {
            bail!("waited {} s until {what}", patience.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}
