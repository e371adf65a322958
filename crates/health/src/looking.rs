//! Looks at servers again and again, more often at one that does not answer.
//!
//! Out: a stream of what was found. Keeps true: at most one look at a server of each kind is under way at a time, but for one that
//! does not answer: see [`Pace`].

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};
use understudy_protocol::server::Server;

use crate::{
    pace::Pace,
    probe,
    verdict::{DEEP_EVERY, Kind, Observation, Outcome, QUICK_EVERY},
};

/// A server to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub server: Server,
    /// The log-in of somebody there, for thorough looks where no canary is named; without one only quick looks are taken.
    pub mailbox: Option<String>,
    /// How often to look while it answers, and to look thoroughly.
    pub quick_every: Duration,
    pub deep_every: Option<Duration>,
}

impl Target {
    /// A server that is looked at in both ways.
    #[must_use]
    pub fn new(server: Server, mailbox: Option<String>) -> Self {
        Self { server, mailbox, quick_every: QUICK_EVERY, deep_every: Some(DEEP_EVERY) }
    }
}

/// What one look at a server found.
pub type Found = (String, Observation);

/// Looks at many servers. Stops when it is dropped.
pub struct Lookers {
    running: HashMap<String, (Target, AbortHandle)>,
    sender: mpsc::Sender<Found>,
}

impl Lookers {
    #[must_use]
    pub fn new(sender: mpsc::Sender<Found>) -> Self {
        Self { running: HashMap::new(), sender }
    }

    /// Looks at these from now on, and at no others.
    pub fn follow(&mut self, targets: Vec<Target>) {
        self.running.retain(|name, (_, task)| {
            let stays = targets.iter().any(|target| target.server.name == *name);
            if !stays {
                task.abort();
            }
            stays
        });
        for target in targets {
            let known = self.running.get(&target.server.name);
            if known.is_some_and(|(known, task)| *known == target && !task.is_finished()) {
                continue;
            }
            if let Some((_, task)) = known {
                task.abort();
            }
            let task = tokio::spawn(look(target.clone(), self.sender.clone())).abort_handle();
            self.running.insert(target.server.name.clone(), (target, task));
        }
    }
}

impl Drop for Lookers {
    fn drop(&mut self) {
        for (_, task) in self.running.values() {
            task.abort();
        }
    }
}

async fn look(target: Target, sender: mpsc::Sender<Found>) {
    let name = &target.server.name;
    let quickly = async {
        let (began, mut pace) = (Instant::now(), Pace::new(target.quick_every));
        let mut underway = FuturesUnordered::new();
        loop {
            let due = pace.due().map(|due| began + due);
            let is_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = is_due => {
                    let (look, server) = (pace.begin(began.elapsed()), &target.server);
                    underway.push(async move { (look, probe::quick(server).await) });
                }
                Some((look, found)) = underway.next() => {
                    let is_bad = matches!(found.outcome, Outcome::Bad(_));
                    let counts = pace.end(look, is_bad, began.elapsed());
                    if !is_bad {
                        underway.clear();
                    }
                    if counts && sender.send((name.clone(), found)).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let thoroughly = async {
        let Some(every) = target.deep_every else { return };
        loop {
            let found = probe::deep(&target.server, target.mailbox.as_deref()).await;
            debug_assert_eq!(found.kind, Kind::Deep);
            if sender.send((name.clone(), found)).await.is_err() {
                return;
            }
            tokio::time::sleep(every).await;
        }
    };
    tokio::join!(quickly, thoroughly);
}
