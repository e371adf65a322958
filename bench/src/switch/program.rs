//! A mail program behind a front door: it works, and logs in again when its session ends.
//!
//! Out: when each of its sessions was answered first and last. Keeps true: it never waits before it logs in again, unless it was
//! refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;
use understudy_tests::client::Client;
use understudy_tests::dovecot::PASSWORD;

/// After a log-in that was refused.
const AGAIN: Duration = Duration::from_millis(250);

/// What it does, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) pause: Duration,
    /// Every so many commands it stores a draft; otherwise it only asks for news.
    pub(super) drafts: Option<u32>,
}

/// One session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) first: Instant,
    pub(super) last: Instant,
}

/// What a mail program lived through.
#[derive(Clone, Debug, Default)]
pub(super) struct Lived {
    pub(super) sessions: Vec<Session>,
    pub(super) refused: Vec<Instant>,
}

/// A running mail program.
pub(super) struct Program {
    task: JoinHandle<Result<Lived>>,
    stop: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
}

impl Program {
    pub(super) fn start(door: SocketAddr, user: &str, work: Work) -> Self {
        let (stop, sessions) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn(live(door, user.to_owned(), work, stop.clone(), sessions.clone()));
        Self { task, stop, sessions }
    }

    /// How often it was let in.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(super) async fn stop(self) -> Result<Lived> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

async fn live(
    door: SocketAddr,
    user: String,
    work: Work,
    stop: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
) -> Result<Lived> {
    let mut lived = Lived::default();
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::log_in(door, &user, PASSWORD).await else {
            lived.refused.push(Instant::now());
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let first = Instant::now();
        lived.sessions.push(Session { first, last: first });
        sessions.fetch_add(1, Ordering::Relaxed);
        for number in 1_u32.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let done = match work.drafts {
                Some(every) if number % every == 0 => draft(&mut client, number).await,
                _ => client.run("NOOP").await,
            };
            if done.is_err() {
                break;
            }
            if let Some(session) = lived.sessions.last_mut() {
                session.last = Instant::now();
            }
            tokio::time::sleep(work.pause).await;
        }
    }
    Ok(lived)
}

async fn draft(client: &mut Client, number: u32) -> Result<()> {
    let text = format!("Subject: draft {number}\r\n\r\nText.\r\n");
    client.append("Drafts", &["\\Draft"], None, text.as_bytes()).await.map(drop)
}

impl Lived {
    /// The session that began first after this moment, and the one before it.
    pub(super) fn reconnected_after(&self, moment: Instant) -> Option<(Session, Session)> {
        let position = self.sessions.iter().position(|session| session.first > moment)?;
        Some((*self.sessions.get(position.checked_sub(1)?)?, self.sessions[position]))
    }
}
