//! Who can go together: the mailboxes of a group whose primary is silent, with nothing left to apply, and whose standby lets them in.
//!
//! In: a group, as the database has it. Out: the group by what is to be done about each.
//! Keeps true: whoever is not sure to be let in is tried alone; what one mailbox found out about a server holds for the run.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{join_all, select_ok};
use serde_json::Value;
use tokio::time::Instant;
use understudy_database::{
    server,
    switch::together::{self as rows, Candidate},
};
use understudy_doveadm::Doveadm;
use understudy_protocol::{MailboxId, Side, messages::Trouble, server::Server};

use super::{
    super::{
        Moving, failed,
        over::{LAST_WORDS, Standing, at_stake, standby_answers},
        steps::Stop,
    },
    Results, counted, with_address,
};
use crate::runs::Runner;

/// Mailboxes of a primary whose last words are waited for before it is given up.
const ASKED: usize = 3;
/// A primary at which nobody answers is given up after this.
const MOMENT: Duration = Duration::from_secs(1);

/// What the mailboxes of one run found out for each other.
#[derive(Default)]
pub(in crate::switch) struct Found {
    /// Primaries that still had something to say.
    heard: tokio::sync::Mutex<HashSet<String>>,
    /// The users that standbys name, where they can.
    named: tokio::sync::Mutex<HashMap<i64, Option<Arc<HashSet<String>>>>>,
    /// When the source gateway was last told.
    pub(super) told: Mutex<Option<Instant>>,
}

/// A group, by what is to be done about each.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) ready: Vec<Candidate>,
    pub(super) already: Vec<Candidate>,
    /// The side was changed before the program was interrupted.
    pub(super) flipped: Vec<Candidate>,
}

impl Runner {
    /// Finds out which of a group can take their steps together; what was done with before the program was interrupted is a
    /// result already.
    pub(super) async fn sort(
        &self,
        moving: &Moving<'_>,
        group: &[(MailboxId, String)],
        results: &mut Results,
    ) -> Result<Sorted, Stop> {
        let numbers: Vec<MailboxId> = group.iter().map(|(mailbox, _)| *mailbox).collect();
        let mut known: HashMap<MailboxId, Candidate> = rows::candidates(&self.pool, moving.run.run_id, &numbers)
            .await?
            .into_iter()
            .map(|candidate| (candidate.mailbox, candidate))
            .collect();
        self.listen_for_last_words(moving, known.values()).await;
        let mut sorted = Sorted::default();
        // In the order of the run.
        for one in numbers.iter().filter_map(|mailbox| known.remove(mailbox)) {
            let epoch = one.epoch;
            match (&one.ours, one.phase.as_str()) {
                (Some(ours), _) if !ours.outcome.is_empty() => {
                    results.insert(one.mailbox, with_address(ours.detail.clone(), &one.address));
                }
                (Some(ours), _) if ours.epoch != epoch => sorted.flipped.push(one),
                _ if one.busy => {}
                (_, "on_standby") if one.route == Some((Side::Standby, epoch)) => sorted.already.push(one),
                (None, "seeding" | "mirroring") | (Some(_), "seeding" | "mirroring" | "switching_over")
                    if moving.is_silent(&one.primary)
                        && one.applied >= one.received
                        && one.route == Some((Side::Primary, epoch)) =>
                {
                    sorted.ready.push(one);
                }
                _ => {}
            }
        }
        Ok(sorted)
    }

    /// Waits a moment whether the primaries of these mailboxes still have something to say; once for each in a run.
    async fn listen_for_last_words(&self, moving: &Moving<'_>, candidates: impl Iterator<Item = &Candidate>) {
        let mut heard = moving.found.heard.lock().await;
        let mut asked: BTreeMap<&str, Vec<MailboxId>> = BTreeMap::new();
        for one in candidates {
            let can_say = !one.paused && matches!(one.phase.as_str(), "seeding" | "mirroring" | "switching_over");
            if can_say && !moving.is_silent(&one.primary) && !heard.contains(&one.primary) {
                asked.entry(&one.primary).or_default().push(one.mailbox);
            }
        }
        let deadline = Instant::now() + LAST_WORDS;
        let listening = asked.into_iter().map(|(primary, mut mailboxes)| async move {
            mailboxes.truncate(ASKED);
            let barriers = mailboxes.iter().map(|mailbox| Box::pin(self.barrier(*mailbox, deadline)));
            let spoke = tokio::select! {
                spoke = select_ok(barriers) => spoke.is_ok(),
                () = self.nobody_answers(&mailboxes) => false,
            };
            (primary, spoke)
        });
        for (primary, spoke) in join_all(listening).await {
            if spoke {
                heard.insert(primary.to_owned());
            } else {
                moving.was_silent(primary);
            }
        }
    }

    /// Returns when the source gateway says of each of these mailboxes that nobody answers at its primary, and has had a moment to
    /// find otherwise.
    async fn nobody_answers(&self, mailboxes: &[MailboxId]) {
        loop {
            tokio::time::sleep(MOMENT).await;
            if rows::is_unreachable(&self.pool, mailboxes).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Are their standbys there, do they let these users in, and may so much be lost? Who is refused gets a result; who has to be
    /// tried alone is left out. Gives what is at stake for each of the rest.
    pub(super) async fn check_together(
        &self,
        moving: &Moving<'_>,
        ready: Vec<Candidate>,
        started: Instant,
        results: &mut Results,
    ) -> Result<(Vec<Candidate>, Vec<Value>), Stop> {
        let mut by_standby: BTreeMap<i64, Vec<Candidate>> = BTreeMap::new();
        let order: Vec<MailboxId> = ready.iter().map(|one| one.mailbox).collect();
        for one in ready {
            by_standby.entry(one.standby).or_default().push(one);
        }
        let mut refused: Vec<(Candidate, Value)> = Vec::new();
        let mut good: HashMap<MailboxId, (Candidate, Value)> = HashMap::new();
        for (standby, candidates) in by_standby {
            let (let_in, turned_away) = self.let_in(moving, standby, candidates).await?;
            refused.extend(turned_away.into_iter().map(|(one, trouble)| (one, failed(&trouble))));
            for one in let_in {
                let standing = Standing {
                    phase: if one.phase == "seeding" { "seeding" } else { "mirroring" },
                    captured: one.captured,
                    received: one.received,
                    applied: one.applied,
                    last_look: one.swept_at.into_iter().chain(one.heard_at).min(),
                };
                match at_stake(&standing, false, moving.order.max_loss) {
                    Ok(stake) => {
                        good.insert(one.mailbox, (one, stake));
                    }
                    Err(Stop::Failed(trouble)) => refused.push((one, failed(&trouble))),
                    Err(stop) => return Err(stop),
                }
            }
        }
        if !refused.is_empty() {
            self.refuse(moving, refused, started, results).await?;
        }
        counted("check", started.elapsed(), good.len());
        Ok(order.iter().filter_map(|mailbox| good.remove(mailbox)).unzip())
    }

    /// Which of these users the standby lets in, and which it does not. One log-in shows that it is there; for the others it
    /// counts that something was applied to their mailbox, or that the standby names them. Who is left out has to be tried.
    async fn let_in(
        &self,
        moving: &Moving<'_>,
        standby: i64,
        mut candidates: Vec<Candidate>,
    ) -> Result<(Vec<Candidate>, Vec<(Candidate, Trouble)>), Stop> {
        // One that was let in before: a user whom the standby does not know says nothing of the others.
        let first = candidates.iter().find(|one| one.proven).or(candidates.first());
        let Some(tried) = first.map(|one| one.mailbox) else { return Ok(Default::default()) };
        match standby_answers(&self.subject(tried).await?).await {
            Ok(()) => {}
            Err(Stop::Failed(trouble)) if matches!(trouble.kind.as_str(), "unreachable" | "timeout" | "closed") => {
                return Ok((Vec::new(), candidates.into_iter().map(|one| (one, trouble.clone())).collect()));
            }
            Err(_) => return Ok(Default::default()),
        }
        if candidates.iter().any(|one| !one.proven && one.mailbox != tried) {
            let named = self.named(moving, standby).await?;
            candidates.retain(|one| {
                one.proven
                    || one.mailbox == tried
                    || named.as_ref().is_some_and(|named| named.contains(&one.standby_address))
            });
        }
        Ok((candidates, Vec::new()))
    }

    /// The users that a standby names; none where it cannot.
    async fn named(&self, moving: &Moving<'_>, standby: i64) -> Result<Option<Arc<HashSet<String>>>, Stop> {
        let mut known = moving.found.named.lock().await;
        if let Some(named) = known.get(&standby) {
            return Ok(named.clone());
        }
        let server = self.server_of(standby).await?;
        let named = match server.as_ref().and_then(|server| Some((server, server.manage.as_ref()?))) {
            Some((server, manage)) => {
                let asking = async {
                    Doveadm::open(&manage.doveadm, &manage.key_file, server.ca_file.as_deref()).await?.users().await
                };
                asking.await.ok().map(|users| Arc::new(users.into_iter().collect()))
            }
            None => None,
        };
        known.insert(standby, named.clone());
        Ok(named)
    }

    pub(super) async fn server_of(&self, number: i64) -> Result<Option<Server>, Stop> {
        let servers = server::every(&self.pool).await?;
        Ok(servers.into_iter().find_map(|(id, _, server)| (id == number).then_some(server)))
    }
}
