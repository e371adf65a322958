//! `/metrics`: what the process counted, and gauges computed from the database when asked.

use std::fmt::Write;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use understudy_database::{brake, canary, proof, run, status, tenant};

use crate::{api::mailboxes::State as MailboxState, error::Result, state::Api};

const MAILBOXES: &str = "understudy_mailboxes";
const SET_ASIDE: &str = "understudy_set_aside_messages";
const LAGGING: &str = "understudy_lagging_mailboxes";
const LAG_TRANSACTIONS: &str = "understudy_lag_transactions";
const LAG_WORST_SECONDS: &str = "understudy_lag_worst_seconds";
const LINK_UP: &str = "understudy_link_up";
const LINK_SILENCE_SECONDS: &str = "understudy_link_silence_seconds";
const UNPROVEN: &str = "understudy_unproven_mailboxes";
const HELD: &str = "understudy_held_messages";
/// Where a pipeline may stop.
const PLACES: [&str; 7] = ["source_gateway", "link", "primary", "capture", "shipping", "standby", "visible"];
const CANARIES: &str = "understudy_canaries";
const CANARIES_LATE: &str = "understudy_canaries_late";
const CANARY_SLOWEST_SECONDS: &str = "understudy_canary_slowest_seconds";
const RUNS_OPEN: &str = "understudy_runs_open";

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus text format 0.0.4", content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(State(api): State<Api>) -> Result<Response> {
    let mut text = api.metrics.as_ref().map(|handle| handle.render()).unwrap_or_default();
    gauges(&api, &mut text).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

async fn gauges(api: &Api, text: &mut String) -> Result<()> {
    let states = status::states(&api.pool, None).await?;
    head(text, MAILBOXES, "Protected mailboxes by state");
    for state in MailboxState::ALL {
        let count = states.iter().find(|count| count.state == state.as_str()).map_or(0, |count| count.mailboxes);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{MAILBOXES}{{state=\"{}\"}} {count}", state.as_str());
    }
    let lagging = status::lagging(&api.pool, None, 1).await?;
    let worst = lagging.first();
    gauge(
        text,
        LAGGING,
        "Mailboxes with something captured and not applied",
        worst.map_or(0, |lag| lag.total_mailboxes),
    );
    let transactions = worst.map_or(0, |lag| lag.total_transactions);
    gauge(text, LAG_TRANSACTIONS, "Transactions captured and not applied", transactions);
    gauge(text, LAG_WORST_SECONDS, "Age of the oldest transaction not applied", worst.map_or(0.0, |lag| lag.seconds));
    let set_aside = status::set_aside(&api.pool, None).await?;
    gauge(text, SET_ASIDE, "Messages that standbys do not hold as they are", set_aside);
    let link = status::link(&api.pool).await?;
    gauge(text, LINK_UP, "Whether the source gateway was heard of lately", i64::from(link.connected()));
    if let Some(silence) = link.age_seconds {
        gauge(text, LINK_SILENCE_SECONDS, "Time since the source gateway was last heard of", silence);
    }
    head(text, UNPROVEN, "Mailboxes that have not proven themselves for a minute, by the place where they stopped");
    let places = proof::places(&api.pool, None).await?;
    for place in PLACES {
        let count = places.iter().find(|(known, _)| known == place).map_or(0, |(_, count)| *count);
        let _ = writeln!(text, "{UNPROVEN}{{place=\"{place}\"}} {count}");
    }
    let canaries = canary::summary(&api.pool, None).await?;
    gauge(text, CANARIES, "Canary mailboxes", canaries.total);
    gauge(text, CANARIES_LATE, "Canary mailboxes whose message has not arrived on the standby in time", canaries.late);
    if let Some(slowest) = canaries.slowest_seconds {
        gauge(text, CANARY_SLOWEST_SECONDS, "The longest way of the last message of each canary", slowest);
    }
    gauge(text, HELD, "Messages whose removal waits for a person", brake::waiting(&api.pool).await?);
    gauge(text, RUNS_OPEN, "Runs that wait or run", run::count_open(&api.pool, &tenant::PROVIDER.into(), "").await?);
    Ok(())
}

fn head(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    head(text, name, help);
    let _ = writeln!(text, "{name} {value}");
}
