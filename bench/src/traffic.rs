//! Steady traffic on a primary: deliveries, flags and moves at a fixed rate over some mailboxes.
//!
//! In: a rate and a duration. Out: what was done, to which message, and when the primary said so.
//! Keeps true: each message is touched once, so that one sighting on the standby belongs to one change; contents are
//! made before the clock starts, so that changes come evenly.

use std::time::{Duration, Instant};

use anyhow::Result;
use understudy_tests::dovecot::Dovecot;

use crate::imap::{Client, Message};
use crate::load;
use crate::random::Random;
use crate::servers::log_in;
use crate::workload::{Workload, small_message};

pub(crate) const MAILBOXES: u32 = 10;
pub(crate) const CHANGES_A_SECOND: u32 = 20;
/// Where messages are moved to.
pub(crate) const ARCHIVE: &str = "Archive";
const MESSAGE_BYTES: usize = 4_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Delivered,
    Flagged,
    Moved,
}

/// One change and the moment of its tagged OK.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) mailbox: usize,
    pub(crate) kind: Kind,
    pub(crate) message_id: String,
    pub(crate) done_at: Instant,
}

/// What will be done, ready to go.
pub(crate) struct Traffic {
    clients: Vec<Client>,
    plan: Vec<Planned>,
}

struct Planned {
    mailbox: usize,
    kind: Kind,
    message_id: String,
    /// Only for a delivery.
    message: Option<Message>,
    /// Only for the others: the message's UID, known because the folder was new.
    uid: u32,
}

/// Messages to flag and to move, first, so that their UIDs are known; then what else a mailbox holds.
pub(crate) fn prepare(primary: &Dovecot, mailboxes: &Workload, seconds: u32) -> Result<()> {
    let mut random = Random::new(5, 0);
    for name in mailboxes.names() {
        let messages: Vec<_> = (1..=pool_size(seconds))
            .map(|uid| small_message(&pool_id(&name, uid), MESSAGE_BYTES, &mut random))
            .collect();
        log_in(primary, &name)?.append("INBOX", &messages)?;
    }
    load::fill(primary, mailboxes)?;
    Ok(())
}

impl Traffic {
    pub(crate) fn plan(primary: &Dovecot, names: &[String], seconds: u32, round: usize) -> Result<Self> {
        let mut clients = Vec::new();
        for name in names {
            let mut client = log_in(primary, name)?;
            client.command("SELECT INBOX")?;
            clients.push(client);
        }
        let mut random = Random::new(6, round as u64);
        let mut next_uid = vec![1; names.len()];
        let plan = (0..CHANGES_A_SECOND * seconds)
            .map(|number| {
                let mailbox = number as usize % names.len();
                let kind = match random.below(10) {
                    0..4 => Kind::Delivered,
                    4..7 => Kind::Flagged,
                    _ => Kind::Moved,
                };
                if kind == Kind::Delivered {
                    let message_id = format!("live-{number}@bench");
                    let message = small_message(&message_id, MESSAGE_BYTES, &mut random);
                    return Planned { mailbox, kind, message_id, message: Some(message), uid: 0 };
                }
                let uid = next_uid[mailbox];
                next_uid[mailbox] += 1;
                Planned { mailbox, kind, message_id: pool_id(&names[mailbox], uid), message: None, uid }
            })
            .collect();
        Ok(Self { clients, plan })
    }

    /// Does everything, evenly spaced from now on.
    pub(crate) fn run(mut self) -> Result<Vec<Change>> {
        let started = Instant::now();
        let pause = Duration::from_secs(1) / CHANGES_A_SECOND;
        let mut changes = Vec::with_capacity(self.plan.len());
        for (number, planned) in (0..).zip(self.plan) {
            let due = started + pause * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let client = &mut self.clients[planned.mailbox];
            match planned.kind {
                Kind::Delivered => client.append("INBOX", planned.message.as_slice())?,
                Kind::Flagged => {
                    client.command(&format!("UID STORE {} +FLAGS.SILENT (\\Flagged)", planned.uid))?;
                }
                Kind::Moved => {
                    client.command(&format!("UID MOVE {} {ARCHIVE}", planned.uid))?;
                }
            }
            changes.push(Change {
                mailbox: planned.mailbox,
                kind: planned.kind,
                message_id: planned.message_id,
                done_at: Instant::now(),
            });
        }
        Ok(changes)
    }
}

/// Every change of one mailbox could be a flag or a move.
fn pool_size(seconds: u32) -> u32 {
    (CHANGES_A_SECOND * seconds).div_ceil(MAILBOXES)
}

fn pool_id(name: &str, uid: u32) -> String {
    format!("pool-{name}-{uid}@bench")
}
