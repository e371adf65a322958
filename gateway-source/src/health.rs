//! Looks whether the primaries answer, and tells the recovery gateway: a second pair of eyes, beside them.
//!
//! Keeps true: that a primary answers is said now and then only; that it does not is said each time.

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use understudy_health::{
    looking::{Lookers, Target},
    verdict::{Kind, Outcome, REPORT_EVERY},
};
use understudy_protocol::{
    messages::{Directives, Heartbeat, Look, LookOutcome},
    server::Server,
};
use uuid::Uuid;

use crate::link::Link;

/// What was found within so long goes in one message.
const TOGETHER: Duration = Duration::from_millis(100);
/// A message that does not get through within this is old news.
const STALE: Duration = Duration::from_secs(5);

/// The primaries to look at, as directives name them.
pub(crate) fn targets(directives: &Directives) -> Vec<Target> {
    let mailbox_of = |server: &Server| {
        let there = directives.mailboxes.iter().filter(|mailbox| mailbox.server == server.name && !mailbox.paused);
        there.map(|mailbox| (mailbox.mailbox, mailbox.address.clone())).min().map(|(_, address)| address)
    };
    directives.servers.iter().map(|server| Target::new(server.clone(), mailbox_of(server))).collect()
}

/// Runs until `shutdown`.
pub(crate) async fn run(
    link: Link,
    gateway: Uuid,
    mut targets: watch::Receiver<Vec<Target>>,
    shutdown: CancellationToken,
) {
    let (sender, mut found) = mpsc::channel(256);
    let mut lookers = Lookers::new(sender);
    let mut said: HashMap<(String, bool), (bool, Instant)> = HashMap::new();
    loop {
        let first = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                let targets = targets.borrow_and_update().clone();
                lookers.follow(targets);
                continue;
            }
            Some(found) = found.recv() => found,
        };
        tokio::time::sleep(TOGETHER).await;
        let mut looks = Vec::new();
        let mut next = Some(first);
        while let Some((server, observation)) = next {
            let deep = observation.kind == Kind::Deep;
            let good = observation.outcome == Outcome::Good;
            let known = said.get(&(server.clone(), deep));
            if !good || known.is_none_or(|(was_good, at)| !was_good || at.elapsed() >= REPORT_EVERY) {
                said.insert((server.clone(), deep), (good, Instant::now()));
                let outcome = match observation.outcome {
                    Outcome::Good => LookOutcome::Good,
                    Outcome::Bad(why) => LookOutcome::Bad(why),
                    Outcome::Unknown(why) => LookOutcome::Unknown(why),
                };
                looks.push(Look { server, deep, outcome, seconds: observation.took.as_secs_f64() });
            }
            next = found.try_recv().ok();
        }
        if looks.is_empty() {
            continue;
        }
        let heartbeat = Heartbeat { looks, ..Heartbeat::news(gateway) };
        let sent = tokio::select! {
            () = shutdown.cancelled() => return,
            sent = tokio::time::timeout(STALE, link.heartbeat(&heartbeat)) => sent,
        };
        if !matches!(sent, Ok(Ok(_))) {
            // It is all said again with the next looks.
            said.clear();
        }
    }
}
