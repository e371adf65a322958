//! Executes what people asked for: barriers, verifications, checks of servers, discovery of users and how much they have.
//!
//! In: rows of `run`. Out: steps, results. Keeps true: one runner a run; a run that a crash interrupted is begun again,
//! since every kind may be.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgListener};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_database::{
    brake, inside,
    journal::{self, Target},
    mailbox,
    run::{self, Ended, Run},
    server,
};
use understudy_protocol::{
    MailboxId, Seq, Side, TenantId,
    messages::{Asked, Reported, ServerCheck, Trouble},
    server::ServerRole,
};
use understudy_replication::check::check;

use crate::{
    directives::DirectiveBoard,
    dispatcher::Applying,
    hooks::Hooks,
    outage::fence,
    standby::check_manage,
    store::Store,
    switch::{Alone, Holds, MailExchangers},
    verify::internal,
};

/// How often the queue is asked, in case a notification was lost.
const POLL: Duration = Duration::from_secs(1);
/// Mailboxes of one run worked on at once.
const SIDE_BY_SIDE: usize = 32;
/// Verifications of one run at once: each lists two mailboxes.
const VERIFICATIONS: usize = 4;
/// How long after its first copy a mailbox may be called "seeding" still.
const SHOWN: Duration = Duration::from_secs(10);
/// The first and the longest pause between looks at how far a mailbox was applied.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// An applier that ends says so; should that be lost, or the applier go on, it is looked after this.
const APPLYING_PAUSE: Duration = Duration::from_secs(1);
/// A question asked of the source gateway about a server is given up after this.
const PATIENCE: Duration = Duration::from_secs(60);
/// A barrier without a timeout of its own.
const DEFAULT_TIMEOUT_SECONDS: f64 = 60.0;

/// What a run asks for.
#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(default)]
    mailbox_ids: Vec<i64>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    deep: bool,
    #[serde(default)]
    repair: bool,
    timeout_seconds: Option<f64>,
    address: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    /// Of an estimate: how many mailboxes it is about, of which `addresses` are some.
    #[serde(default)]
    mailboxes: u64,
    /// Of an estimate: how many of the list are protected already and left out, and the first of them.
    #[serde(default)]
    protected: u64,
    #[serde(default)]
    protected_addresses: Vec<String>,
}

/// The task that executes runs.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) pool: PgPool,
    pub(crate) store: Store,
    pub(crate) board: DirectiveBoard,
    pub(crate) applying: Applying,
    pub(crate) alone: Alone,
    pub(crate) hooks: Hooks,
    pub(crate) holds: Holds,
    pub(crate) exchangers: Arc<MailExchangers>,
}

impl Runner {
    pub(crate) fn new(
        pool: PgPool,
        store: Store,
        board: DirectiveBoard,
        applying: Applying,
        hooks: Hooks,
        exchangers: MailExchangers,
    ) -> Self {
        let holds = Holds::beside(&pool);
        Self { pool, store, board, applying, alone: Alone::default(), hooks, holds, exchangers: Arc::new(exchangers) }
    }

    /// Runs until `shutdown`; what is under way then is begun again at the next start.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                served = self.serve(&tasks, &shutdown) => {
                    if let Err(error) = served {
                        tracing::warn!(error = format!("{error:#}"), "Could not read the queue of runs; trying again");
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(POLL) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn serve(&self, tasks: &TaskTracker, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(run::WAITING_CHANNEL).await?;
        if tasks.is_empty() {
            run::requeue_running(&self.pool).await?;
        }
        loop {
            while let Some(run) = self.claim().await? {
                let (this, shutdown) = (self.clone(), shutdown.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = this.execute(run) => {}
                    }
                });
            }
            let _ = tokio::time::timeout(POLL, listener.recv()).await.map_or(Ok(None), |heard| heard.map(Some))?;
        }
    }

    async fn claim(&self) -> anyhow::Result<Option<Run>> {
        let mut db = self.pool.acquire().await?;
        Ok(run::claim_waiting(&mut db).await?)
    }

    async fn execute(&self, run: Run) {
        let run_id = run.run_id;
        let side = match run.kind.as_str() {
            "switchover" => Some(Side::Standby),
            "switchback" => Some(Side::Primary),
            _ => None,
        };
        let outcome = match side {
            // It cannot be left in the middle: it looks itself whether somebody wants it to stop.
            Some(side) => self.change_side(&run, side).await,
            None => tokio::select! {
                outcome = self.outcome(&run) => outcome.map(|result| (Ended::Done, result)),
                () = self.cancelled(&run) => {
                    Ok((Ended::Cancelled, json!({ "reason": "cancelled by a person", "remedy": "" })))
                }
            },
        };
        let (ended, result) = outcome
            .unwrap_or_else(|trouble| (Ended::Failed, json!({ "reason": trouble.reason, "remedy": trouble.remedy })));
        let finished = async {
            let mut db = self.pool.acquire().await?;
            run::finish(&mut db, run_id, ended, &result).await?;
            anyhow::Ok(())
        };
        if let Err(error) = finished.await {
            tracing::error!(run.id = %run_id, error = format!("{error:#}"), "Could not note the end of a run");
        }
    }

    /// Ends when a person cancels the run.
    async fn cancelled(&self, run: &Run) {
        loop {
            tokio::time::sleep(POLL).await;
            if run::cancel_requested(&self.pool, run.run_id).await.unwrap_or(false) {
                return;
            }
        }
    }

    async fn outcome(&self, run: &Run) -> Result<Value, Trouble> {
        let request: Request = serde_json::from_value(run.request.clone()).map_err(|error| internal(&error))?;
        match run.kind.as_str() {
            "barrier" => self.barriers(run, &request).await,
            "verify" => self.verifications(run, &request).await,
            "check" => self.check(run, &request).await,
            "release" => self.decide(run, &request, true).await,
            "discard" => self.decide(run, &request, false).await,
            "discover" => self.discover(run).await,
            "estimate" => self.estimate(run, &request).await,
            kind => Err(Trouble {
                kind: "unknown_run".to_owned(),
                reason: format!("this recovery gateway does not know runs of kind {kind}"),
                remedy: "Upgrade it to the version of the admin API.".to_owned(),
                fault: true,
            }),
        }
    }

    /// The mailboxes a run is about.
    async fn mailboxes(&self, run: &Run, request: &Request) -> Result<Vec<(MailboxId, String)>, Trouble> {
        let all = mailbox::all(&self.pool, &TenantId(run.tenant_id).into()).await.map_err(|error| internal(&error))?;
        let wanted =
            |id: &MailboxId| request.all || run.mailbox_id == Some(id.0) || request.mailbox_ids.contains(&id.0);
        Ok(all.into_iter().filter(|(id, _)| wanted(id)).collect())
    }

    async fn barriers(&self, run: &Run, request: &Request) -> Result<Value, Trouble> {
        let timeout = request.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS).clamp(0.0, 86_400.0);
        let deadline = Instant::now() + Duration::from_secs_f64(timeout);
        let mailboxes = self.mailboxes(run, request).await?;
        let results: Vec<Value> = stream::iter(mailboxes)
            .map(|(mailbox, address)| async move {
                let reached = match self.barrier(mailbox, deadline).await {
                    Ok(seq) => {
                        self.shown_as_mirrored(mailbox).await;
                        self.held(mailbox).await.map(|()| seq)
                    }
                    Err(trouble) => Err(trouble),
                };
                match reached {
                    Ok(seq) => json!({ "address": address, "outcome": "reached", "detail": null, "seq": seq.0 }),
                    Err(trouble) => json!({
                        "address": address,
                        "outcome": if trouble.kind == "timeout" { "timeout" } else { "failed" },
                        "detail": { "reason": trouble.reason, "remedy": trouble.remedy },
                        "seq": null,
                    }),
                }
            })
            .buffered(SIDE_BY_SIDE)
            .collect()
            .await;
        Ok(json!({ "mailboxes": results }))
    }

    /// That a first copy is whole is told by the source gateway a moment after its last message: whoever waited for it may go on with a
    /// command that asks.
    async fn shown_as_mirrored(&self, mailbox: MailboxId) {
        let deadline = Instant::now() + SHOWN;
        let mut pause = FIRST_PAUSE;
        while Instant::now() < deadline
            && mailbox::get(&self.pool, mailbox)
                .await
                .is_ok_and(|known| known.is_some_and(|known| known.phase == "seeding"))
        {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until everything done before now on the active side is visible on the other.
    pub(crate) async fn barrier(&self, mailbox: MailboxId, deadline: Instant) -> Result<Seq, Trouble> {
        self.stopped(mailbox).await?;
        let late = || async { self.why_late(mailbox).await };
        let captured = loop {
            let mut question = self.board.ask(Asked::Barrier { mailbox });
            match tokio::time::timeout_at(deadline, question.answer()).await {
                Err(_) => return Err(late().await),
                Ok(Ok(Reported::Barrier { captured })) => break captured,
                Ok(Ok(_)) => {
                    return Err(internal(&std::io::Error::other("the source gateway answered something else")));
                }
                // Its capture is just being started again.
                Ok(Err(trouble)) if !trouble.fault => {
                    self.stopped(mailbox).await?;
                    if Instant::now() + LONGEST_PAUSE > deadline {
                        return Err(late().await);
                    }
                    tokio::time::sleep(LONGEST_PAUSE).await;
                }
                Ok(Err(trouble)) => return Err(trouble),
            }
        };
        let mut pause = FIRST_PAUSE;
        self.applying.received(mailbox);
        loop {
            let progress = self.applying.progress(mailbox);
            let ended = progress.notified();
            let numbers = journal::numbers(&self.pool, mailbox).await.map_err(|error| internal(&error))?;
            let Some(numbers) = numbers else { return Err(unprotected()) };
            if numbers.applied >= captured {
                return Ok(captured);
            }
            if Instant::now() >= deadline {
                return Err(late().await);
            }
            let _ = tokio::time::timeout(pause, ended).await;
            pause = (pause * 2).min(APPLYING_PAUSE);
        }
    }

    /// A mailbox that a person stopped reaches no barrier.
    async fn stopped(&self, mailbox: MailboxId) -> Result<(), Trouble> {
        let target = self.target(mailbox).await?;
        if !target.stopped {
            return Ok(());
        }
        let known = mailbox::get(&self.pool, mailbox).await.map_err(|error| internal(&error))?;
        let (reason, remedy) = match known.is_some_and(|known| known.phase != "mirroring" && known.phase != "seeding") {
            true => ("the user works on the standby: nothing is mirrored meanwhile", "Bring the mailbox home first."),
            false => ("the mailbox is paused", "Resume it first."),
        };
        Err(Trouble { kind: "stopped".to_owned(), reason: reason.to_owned(), remedy: remedy.to_owned(), fault: true })
    }

    /// What a held mailbox's brake stopped is not visible on the other side.
    async fn held(&self, mailbox: MailboxId) -> Result<(), Trouble> {
        let known = mailbox::get(&self.pool, mailbox).await.map_err(|error| internal(&error))?;
        match known {
            Some(known) if known.held => {
                Err(known.trouble.and_then(|trouble| serde_json::from_value(trouble).ok()).unwrap_or_else(unprotected))
            }
            _ => Ok(()),
        }
    }

    /// A person decides about what the mass-change brake parked.
    async fn decide(&self, run: &Run, request: &Request, meant: bool) -> Result<Value, Trouble> {
        let mut results = Vec::new();
        for (mailbox, address) in self.mailboxes(run, request).await? {
            let decided = async {
                let mut db = self.pool.begin().await?;
                let messages = match meant {
                    true => brake::release(&mut db, mailbox, &run.requested_by).await?,
                    false => brake::discard(&mut db, mailbox, &run.requested_by).await?,
                };
                db.commit().await?;
                anyhow::Ok(messages)
            };
            let messages = decided.await.map_err(|error| internal(&*error))?;
            while meant && brake::is_released(&self.pool, mailbox).await.map_err(|error| internal(&error))? {
                self.applying.received(mailbox);
                tokio::time::sleep(LONGEST_PAUSE).await;
            }
            let state = mailbox::get(&self.pool, mailbox).await.map_err(|error| internal(&error))?;
            let state = state.map(|mailbox| mailbox.state);
            results.push(json!({ "address": address, "messages": messages, "state": state }));
        }
        Ok(json!({ "mailboxes": results }))
    }

    pub(crate) async fn target(&self, mailbox: MailboxId) -> Result<Target, Trouble> {
        journal::target(&self.pool, mailbox).await.map_err(|error| internal(&error))?.ok_or_else(unprotected)
    }

    /// Why a barrier was not reached in time: what stands in the way, if something does.
    async fn why_late(&self, mailbox: MailboxId) -> Trouble {
        let known = mailbox::get(&self.pool, mailbox).await.ok().flatten();
        let standing = known.and_then(|mailbox| serde_json::from_value::<Trouble>(mailbox.trouble?).ok());
        let (reason, remedy) = match standing {
            Some(trouble) => (trouble.reason, trouble.remedy),
            None => (
                "the time was up before everything was visible on the standby".to_owned(),
                "Give it more time; `understudy status` shows how far it is.".to_owned(),
            ),
        };
        Trouble { kind: "timeout".to_owned(), reason, remedy, fault: false }
    }

    async fn verifications(&self, run: &Run, request: &Request) -> Result<Value, Trouble> {
        let mailboxes = self.mailboxes(run, request).await?;
        let results: Vec<Value> =
            stream::iter(mailboxes)
                .map(|(mailbox, address)| async move {
                    self.verified(mailbox, &address, request.deep, request.repair).await
                })
                .buffered(VERIFICATIONS)
                .collect()
                .await;
        Ok(json!({ "mailboxes": results }))
    }

    async fn check(&self, run: &Run, request: &Request) -> Result<Value, Trouble> {
        let stored = self.server(run).await?;
        let definition = stored.definition;
        let checked: Result<ServerCheck, Trouble> = match definition.role {
            ServerRole::Standby => {
                let mut checked = check(&definition, request.address.as_deref(), &[]).await;
                checked.findings.push(check_manage(&definition).await);
                Ok(checked)
            }
            ServerRole::Primary => {
                let asked = Asked::Check { server: definition.clone(), address: request.address.clone() };
                match self.ask(asked).await? {
                    Reported::Check(mut checked) => {
                        let server_id = run.server_id.unwrap_or_default();
                        checked.findings.push(fence::check(&self.pool, server_id, &definition).await);
                        Ok(checked)
                    }
                    _ => Err(internal(&std::io::Error::other("the source gateway answered something else"))),
                }
            }
        };
        if let Some(server_id) = run.server_id {
            server::record_check(&self.pool, server_id, &checked).await.map_err(|error| internal(&error))?;
        }
        serde_json::to_value(checked?).map_err(|error| internal(&error))
    }

    async fn discover(&self, run: &Run) -> Result<Value, Trouble> {
        let stored = self.server(run).await?;
        match self.ask(Asked::Discover { server: stored.definition }).await? {
            Reported::Discover { users } => Ok(json!({ "users": users })),
            _ => Err(internal(&std::io::Error::other("the source gateway answered something else"))),
        }
    }

    /// How much a list of users has, from some of them, and how long its first copy takes, from those before it.
    async fn estimate(&self, run: &Run, request: &Request) -> Result<Value, Trouble> {
        let stored = self.server(run).await?;
        let addresses = request.addresses.clone();
        let Reported::Measured { sizes, refused } =
            self.ask(Asked::Measure { server: stored.definition, addresses }).await?
        else {
            return Err(internal(&std::io::Error::other("the source gateway answered something else")));
        };
        let measured = (sizes.len() as u64).max(1);
        let of_all = |sum: u64| {
            u64::try_from(u128::from(sum) * u128::from(request.mailboxes) / u128::from(measured)).unwrap_or(u64::MAX)
        };
        let bytes = of_all(sizes.iter().map(|size| size.bytes).sum());
        let rate = inside::first_copy_rate(&self.pool, TenantId(run.tenant_id)).await;
        let rate = rate.map_err(|error| internal(&error))?.filter(|rate| *rate >= 1.0);
        let refused: Vec<Value> = refused
            .iter()
            .map(|one| json!({ "address": one.address, "reason": one.trouble.reason, "remedy": one.trouble.remedy }))
            .collect();
        Ok(json!({
            "mailboxes": request.mailboxes,
            "protected": request.protected,
            "protected_addresses": request.protected_addresses,
            "measured": sizes.len(),
            "messages": of_all(sizes.iter().map(|size| size.messages).sum()),
            "bytes": bytes,
            "bytes_per_second": rate.map(f64::round),
            "seconds": rate.map(|rate| (bytes as f64 / rate).ceil()),
            "refused": refused,
        }))
    }

    async fn server(&self, run: &Run) -> Result<server::StoredServer, Trouble> {
        let id = run.server_id.unwrap_or_default();
        let stored = server::by_id(&self.pool, id).await.map_err(|error| internal(&error))?;
        stored.ok_or_else(|| Trouble {
            kind: "no_such_server".to_owned(),
            reason: "the server was removed".to_owned(),
            remedy: "Add it again.".to_owned(),
            fault: true,
        })
    }

    /// Asks the source gateway and waits a while.
    pub(crate) async fn ask(&self, asked: Asked) -> Result<Reported, Trouble> {
        let mut question = self.board.ask(asked);
        tokio::time::timeout(PATIENCE, question.answer()).await.unwrap_or_else(|_| {
            Err(Trouble {
                kind: "timeout".to_owned(),
                reason: "no source gateway answered".to_owned(),
                remedy: "See that it runs and that the link is up: `understudy status`.".to_owned(),
                fault: false,
            })
        })
    }
}

fn unprotected() -> Trouble {
    Trouble {
        kind: "unprotected".to_owned(),
        reason: "the mailbox is not protected any more".to_owned(),
        remedy: "Protect it again.".to_owned(),
        fault: true,
    }
}
