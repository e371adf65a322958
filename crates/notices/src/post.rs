//! Sends what the outbox holds: by the relays in their order, again with growing pauses, for three days.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use lettre::message::Mailbox;
use rand::Rng;
use sqlx::postgres::PgListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use understudy_database::notice::{self, Attempt, Next, Outgoing};

use crate::{NoticesConfig, hook, mail::mail, relay::RelayError};

/// Messages under way at once.
const AT_ONCE: usize = 4;
/// Nobody else sends a message for so long; all relays together take less.
const LEASE_SECONDS: f64 = 600.0;
/// How often is looked, beside being woken.
const LOOK: Duration = Duration::from_secs(1);
/// The first pause, and the longest.
const FIRST_PAUSE_SECONDS: i64 = 5;
const LONGEST_PAUSE_SECONDS: i64 = 3600;
/// A message that cannot be sent for so long is given up.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::days(3);
/// The delivery log goes back so far.
const KEPT_DAYS: i32 = 90;
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Runs until `shutdown`; a message under way then is sent again after its lease, as the same mail.
pub(crate) async fn run(config: NoticesConfig, sender: Mailbox, shutdown: CancellationToken) {
    let mut failed = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = watch(&config, &sender) => if let Err(error) = outcome {
                if !failed {
                    tracing::warn!(error = format!("{error:#}"), "Could not send messages; trying again");
                }
                failed = true;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn watch(config: &NoticesConfig, sender: &Mailbox) -> anyhow::Result<()> {
    let mut listener = PgListener::connect_with(&config.pool).await?;
    listener.listen(notice::CHANNEL).await?;
    let mut under_way = JoinSet::new();
    let mut forget = tokio::time::interval(FORGET_EVERY);
    loop {
        while under_way.len() < AT_ONCE
            && let Some(message) = notice::lease(&config.pool, LEASE_SECONDS).await?
        {
            let (config, sender) = (config.clone(), sender.clone());
            under_way.spawn(async move { send(&config, &sender, message).await });
        }
        tokio::select! {
            Some(done) = under_way.join_next() => done??,
            _ = forget.tick() => notice::forget(&mut *config.pool.acquire().await?, KEPT_DAYS).await?,
            heard = tokio::time::timeout(LOOK, listener.recv()) => { heard.map_or(Ok(None), |heard| heard.map(Some))?; }
        }
    }
}

async fn send(config: &NoticesConfig, sender: &Mailbox, message: Outgoing) -> anyhow::Result<()> {
    let (attempts, next) = match message.channel.as_str() {
        "hook" => hook::send(config, &message).await,
        _ => by_relays(config, sender, &message).await,
    };
    let outcome = match next {
        Next::Sent => "sent",
        Next::Again { .. } => "deferred",
        Next::Failed => "failed",
    };
    tracing::debug!(message.id = %message.message_id, topic = message.topic, outcome, "Tried to send a message");
    let mut db = config.pool.begin().await?;
    notice::settle(&mut db, &message, &attempts, next).await?;
    db.commit().await?;
    Ok(())
}

async fn by_relays(config: &NoticesConfig, sender: &Mailbox, message: &Outgoing) -> (Vec<Attempt>, Next) {
    let built = match mail(message, sender) {
        Ok(built) => built,
        Err(error) => {
            let answer = format!("{error:#}");
            return (vec![Attempt { via: String::new(), outcome: "refused", answer }], Next::Failed);
        }
    };
    let mut attempts = Vec::new();
    for relay in &config.relays {
        let via = relay.to_string();
        match relay.hand_in(built.clone()).await {
            Ok(answer) => {
                attempts.push(Attempt { via, outcome: "sent", answer });
                return (attempts, Next::Sent);
            }
            Err(RelayError::Refused(answer)) => attempts.push(Attempt { via, outcome: "refused", answer }),
            Err(RelayError::Deferred(answer)) => attempts.push(Attempt { via, outcome: "deferred", answer }),
        }
    }
    // Only what every relay refuses for good is given up before its time.
    let all_refused = !attempts.is_empty() && attempts.iter().all(|attempt| attempt.outcome == "refused");
    let next = if all_refused { Next::Failed } else { again(message) };
    (attempts, next)
}

/// When to try again: the pause doubles, a little apart from all others that failed together.
pub(crate) fn again(message: &Outgoing) -> Next {
    if Utc::now() - message.created_at > GIVEN_UP_AFTER {
        return Next::Failed;
    }
    let doublings = u32::try_from(message.attempts - 1).unwrap_or(0).min(16);
    let pause = (FIRST_PAUSE_SECONDS << doublings).min(LONGEST_PAUSE_SECONDS);
    Next::Again { seconds: pause + rand::rng().random_range(0..=pause / 4) }
}
