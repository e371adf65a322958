//! `/status`: how things are, on one screen.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use understudy_database::{
    canary, content, part, proof, run, server,
    status::{self, Lagging},
};
use understudy_protocol::words::counted;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{
        events::LaggingMailbox,
        link::{self, LinkPath},
        mailboxes::{State as MailboxState, Traffic},
        runs::Run,
        servers::{self, Server},
    },
    auth::Caller,
    error::Result,
    state::Api,
};

/// How many servers and open runs one screen shows.
const SHOWN_SERVERS: i64 = 100;
const SHOWN_RUNS: i64 = 20;
/// A wait shorter than this is how things are in normal times.
const NOTABLE_LAG_SECONDS: f64 = 5.0;
/// A recovery gateway that has not looked after its mailboxes for longer counts as stopped; it looks every few seconds.
const RECOVERY_SILENCE_SECONDS: f64 = 60.0;

/// A second source gateway asks again all the while; one that was turned away longer ago than this is gone.
const NEWS: TimeDelta = TimeDelta::minutes(2);

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(status))
}

/// How things are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    version: &'static str,
    now: DateTime<Utc>,
    /// The whole in one plain sentence.
    sentence: String,
    servers: Vec<Server>,
    link: Link,
    mailboxes: Mailboxes,
    lag: Lagged,
    runs: Runs,
    /// How many messages standbys do not hold as they are.
    set_aside: i64,
    /// Mailboxes that have not proven themselves for a minute, by the place where they stopped: `source_gateway`, `link`, `primary`,
    /// `shipping`, `standby`.
    unproven: BTreeMap<String, i64>,
    canaries: Canaries,
    content: ContentStore,
    /// What messages came to on the link, of all mailboxes.
    traffic: Traffic,
    /// How long ago the recovery gateway last looked after the mailboxes; null before it ever did.
    recovery_age_seconds: Option<f64>,
}

/// The connection between the gateways.
#[derive(Debug, Serialize, ToSchema)]
struct Link {
    connected: bool,
    heard_at: Option<DateTime<Utc>>,
    age_seconds: Option<f64>,
    /// Of the source gateway.
    product_version: Option<String>,
    /// When a second source gateway was last turned away: only one is listened to. Null when none was in the last two minutes.
    second_gateway_at: Option<DateTime<Utc>>,
    /// The ways to the recovery site, the best first.
    paths: Vec<LinkPath>,
    /// Bytes that ever went over the wire to the recovery site, and from it.
    bytes_out: i64,
    bytes_in: i64,
}

/// Protected mailboxes in numbers.
#[derive(Debug, Serialize, ToSchema)]
struct Mailboxes {
    total: i64,
    by_state: BTreeMap<&'static str, i64>,
}

/// Mailboxes that prove the pipeline end to end, in numbers.
#[derive(Debug, Serialize, ToSchema)]
struct Canaries {
    total: i64,
    /// Their message has not arrived in time.
    late: i64,
    /// The longest way of the last message of each; null before the first.
    slowest_seconds: Option<f64>,
}

/// Where the recovery site keeps message contents.
#[derive(Debug, Serialize, ToSchema)]
struct ContentStore {
    /// `file`, or `s3://bucket/prefix`.
    place: String,
    encrypted: bool,
    /// Contents found to be damaged and not brought back yet.
    damaged: i64,
    /// Why nothing can be taken in, most often a full disk; null while there is room.
    refusing: Option<Refusing>,
}

/// Why the content store takes nothing in.
#[derive(Debug, Serialize, ToSchema)]
struct Refusing {
    since: DateTime<Utc>,
    kind: String,
    reason: String,
    remedy: String,
}

impl From<content::State> for ContentStore {
    fn from(state: content::State) -> Self {
        let refusing = state.refusing.map(|(trouble, since)| Refusing {
            since,
            kind: trouble.kind,
            reason: trouble.reason,
            remedy: trouble.remedy,
        });
        Self { place: state.place, encrypted: state.encrypted, damaged: state.damaged, refusing }
    }
}

/// What is captured and not applied, of all mailboxes.
#[derive(Debug, Serialize, ToSchema)]
struct Lagged {
    lagging: i64,
    transactions: i64,
    /// Age of the oldest.
    seconds: f64,
    bytes: i64,
    worst: Option<LaggingMailbox>,
}

/// Runs that wait or run.
#[derive(Debug, Serialize, ToSchema)]
struct Runs {
    open: i64,
    items: Vec<Run>,
}

/// How things are.
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses((status = 200, body = Status)))]
async fn status(State(api): State<Api>, caller: Caller) -> Result<Json<Status>> {
    let (tenant, scope) = (caller.tenant, &caller.scope);
    let counts = status::states(&api.pool, Some(scope)).await?;
    let count = |state: MailboxState| {
        counts.iter().find(|count| count.state == state.as_str()).map_or(0, |count| count.mailboxes)
    };
    let by_state = MailboxState::ALL.into_iter().map(|state| (state.as_str(), count(state))).collect();
    let mailboxes = Mailboxes { total: counts.iter().map(|count| count.mailboxes).sum(), by_state };
    let stored = server::list(&api.pool, tenant, None, None, SHOWN_SERVERS).await?;
    let servers = servers::shown_all(&api, &caller, stored).await?;
    let link = link(&api).await?;
    let lag = lagged(&status::lagging(&api.pool, Some(scope), 1).await?);
    let open = run::Filter { open: true, own: &caller.name, limit: SHOWN_RUNS, ..run::Filter::default() };
    let items = run::list(&api.pool, scope, &open).await?.into_iter().map(Run::from).collect();
    let runs = Runs { open: run::count_open(&api.pool, scope, &caller.name).await?, items };
    let set_aside = status::set_aside(&api.pool, Some(scope)).await?;
    let unproven: BTreeMap<String, i64> = proof::places(&api.pool, Some(scope)).await?.into_iter().collect();
    let canaries = canary::summary(&api.pool, Some(scope)).await?;
    let canaries = Canaries { total: canaries.total, late: canaries.late, slowest_seconds: canaries.slowest_seconds };
    let content: ContentStore = content::state(&api.pool).await?.into();
    let recovery_age_seconds = proof::unwatched_seconds(&api.pool).await?;
    let sentence = match recovery_age_seconds.filter(|age| *age > RECOVERY_SILENCE_SECONDS) {
        Some(age) if mailboxes.total > 0 => {
            format!("The recovery gateway has been silent for {}: nothing is applied.", duration(age))
        }
        _ if content.refusing.is_some() => "The recovery site has no room: nothing more is taken in.".to_owned(),
        _ => sentence(!servers.is_empty(), &mailboxes, &link, &lag, set_aside, &unproven),
    };
    let version = env!("CARGO_PKG_VERSION");
    Ok(Json(Status {
        version,
        now: Utc::now(),
        sentence,
        servers,
        link,
        mailboxes,
        lag,
        runs,
        set_aside,
        unproven,
        canaries,
        content,
        traffic: part::traffic(&api.pool, tenant).await?.into(),
        recovery_age_seconds,
    }))
}

async fn link(api: &Api) -> Result<Link> {
    let link = status::link(&api.pool).await?;
    let (bytes_out, bytes_in) = link::sums(api).await?;
    Ok(Link {
        connected: link.connected(),
        heard_at: link.heard_at,
        age_seconds: link.age_seconds,
        product_version: Some(link.product_version).filter(|version| !version.is_empty()),
        second_gateway_at: link.turned_away_at.filter(|at| Utc::now() - *at < NEWS),
        paths: link::paths(api).await?,
        bytes_out,
        bytes_in,
    })
}

fn lagged(lagging: &[Lagging]) -> Lagged {
    let worst = lagging.first();
    Lagged {
        lagging: worst.map_or(0, |lag| lag.total_mailboxes),
        transactions: worst.map_or(0, |lag| lag.total_transactions),
        seconds: worst.map_or(0.0, |lag| lag.seconds),
        bytes: worst.map_or(0, |lag| lag.total_bytes),
        worst: worst.map(LaggingMailbox::from),
    }
}

/// The worst thing first: what is worth a person's attention now.
fn sentence(
    has_servers: bool,
    mailboxes: &Mailboxes,
    link: &Link,
    lag: &Lagged,
    set_aside: i64,
    unproven: &BTreeMap<String, i64>,
) -> String {
    let count = |state: MailboxState| mailboxes.by_state.get(state.as_str()).copied().unwrap_or(0);
    let total = mailboxes.total;
    if !has_servers {
        return "No mail server is known yet; add one with `understudy server add`.".to_owned();
    }
    if total == 0 {
        return "No mailbox is protected yet; choose some with `understudy mailbox protect`.".to_owned();
    }
    if !link.connected {
        return match link.age_seconds {
            Some(age) => format!("The source gateway has been silent for {}: no changes arrive.", duration(age)),
            None => "No source gateway has been heard of yet: no changes arrive.".to_owned(),
        };
    }
    let faulted = count(MailboxState::Faulted);
    if faulted > 0 {
        return format!("{} stopped by an error; each says what to do.", of(faulted, total));
    }
    let held = count(MailboxState::Held);
    if held > 0 {
        return format!("{} held: many changes at once; say whether they are meant.", of(held, total));
    }
    let silent: i64 = unproven.values().sum();
    if silent > 0 {
        let places: Vec<String> = unproven.keys().map(|place| place.replace('_', " ")).collect();
        return format!("{} unproven for a minute or more; it stopped at: {}.", of(silent, total), places.join(", "));
    }
    if lag.seconds >= NOTABLE_LAG_SECONDS && count(MailboxState::Seeding) == 0 {
        let waiting = counted(lag.transactions, "transaction waits", "transactions wait");
        return format!("The standby is behind: {waiting}, the oldest for {}.", duration(lag.seconds));
    }
    let seeding = count(MailboxState::Seeding);
    if seeding > 0 {
        return format!("{} being copied for the first time.", of(seeding, total));
    }
    if set_aside > 0 {
        let messages = counted(set_aside, "message is", "messages are");
        return format!("Everything is mirrored, but {messages} not on the standby as they are; each has its reason.");
    }
    let paused = count(MailboxState::Paused);
    if paused > 0 {
        return format!("{} paused; the others are mirrored.", of(paused, total));
    }
    match total {
        1 => "The one protected mailbox is mirrored.".to_owned(),
        total => format!("All {total} mailboxes are mirrored."),
    }
}

fn of(some: i64, total: i64) -> String {
    format!("{some} of {} {}", counted(total, "mailbox", "mailboxes"), if some == 1 { "is" } else { "are" })
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}
