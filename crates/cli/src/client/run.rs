//! A run as the API shows it, and waiting for its end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{Client, decode};
use crate::failure::{Failure, Result};

/// How long one question for the end of a run is held open; short enough for proxies.
const HELD_OPEN_SECONDS: u64 = 20;
/// The pause between questions that were answered at once.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A durable piece of work somebody asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) address: Option<String>,
    pub(crate) server: Option<String>,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) requested_by: String,
    pub(crate) result: Option<Value>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
}

/// One timed step of a run.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) position: i64,
    pub(crate) name: String,
    pub(crate) address: Option<String>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(crate) outcome: String,
}

impl Run {
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed" | "cancelled")
    }

    /// Its kind, in a sentence.
    fn noun(&self) -> &str {
        match self.kind.as_str() {
            "verify" => "comparison",
            "discover" => "discovery",
            kind => kind,
        }
    }

    /// What came of it, or why nothing did.
    pub(crate) fn into_result(self) -> Result<Value> {
        let what = format!("the {} failed", self.noun());
        match self.state.as_str() {
            "done" => Ok(self.result.unwrap_or(Value::Null)),
            "cancelled" => {
                Err(Failure::new(format!("the {} was cancelled", self.noun()), "somebody asked for it", "ask again"))
            }
            _ => {
                let said = |key: &str| {
                    self.result.as_ref().and_then(|result| result.get(key)).and_then(Value::as_str).unwrap_or_default()
                };
                Err(Failure::new(what, said("reason"), said("remedy")))
            }
        }
    }
}

impl Client {
    /// Starts a run and waits for its end, at most `deadline`; a run that did not end by then is cancelled.
    pub(crate) async fn run_to_end(&self, segments: &[&str], body: &Value, deadline: Duration) -> Result<Run> {
        let answer = self.post(segments, &[], body).await?;
        self.follow(decode(&answer.body)?, deadline).await
    }

    /// Waits for the end of a run, at most `deadline`.
    pub(crate) async fn follow(&self, started: Run, deadline: Duration) -> Result<Run> {
        let until = tokio::time::Instant::now() + deadline;
        let mut run = started;
        let mut pause = PAUSE;
        while !run.is_ended() {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Err(self.give_up(&run, deadline).await);
            }
            let hold = left.as_secs().clamp(1, HELD_OPEN_SECONDS).to_string();
            let asked = tokio::time::Instant::now();
            (run, _) = self.read(&["runs", &run.run_id], &[("wait", &hold)]).await?;
            if !run.is_ended() && asked.elapsed() < PAUSE_MAX {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        Ok(run)
    }

    async fn give_up(&self, run: &Run, deadline: Duration) -> Failure {
        // It is nobody's any more; that it could not be cancelled changes nothing for the caller.
        let _ = self.post(&["runs", &run.run_id, "cancel"], &[], &serde_json::json!({})).await;
        let why = match run.state.as_str() {
            "waiting" => "no recovery gateway took it up",
            _ => "it is still at work",
        };
        Failure::new(
            format!("the {} did not end within {} s", run.noun(), deadline.as_secs()),
            why,
            "look at `understudy status`; give it more time with --timeout",
        )
    }
}
