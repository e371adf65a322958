//! `/events`: what happens, as it happens, as server-sent events.
//!
//! Keeps true: a listener that comes back with `Last-Event-ID` hears everything since, once and in order.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName},
    response::{IntoResponse, Response, Sse, sse},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::MissedTickBehavior,
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;
use understudy_database::{event, status::Lagging};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    api::mailboxes::{self, Lag},
    auth::Caller,
    error::{ApiError, Kind, Problem, Result},
    events::Heard,
    extract::{Params, given},
    state::Api,
};

/// A comment line goes out when nothing else did for so long, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events read at once for a listener that has to catch up.
const BATCH: i64 = 500;
/// Events ready for a listener whose connection is slow.
const READY: usize = 64;
/// How often a listener's session or token is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How many mailboxes a lag sample names.
const NAMED: usize = 100;
/// The header of a listener that comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(listen))
}

/// One event's `data`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    event_id: i64,
    kind: String,
    address: Option<String>,
    primary: Option<String>,
    run_id: Option<Uuid>,
    detail: Value,
    created_at: DateTime<Utc>,
}

impl From<event::Event> for Event {
    fn from(event: event::Event) -> Self {
        Self {
            event_id: event.event_id,
            kind: event.kind,
            address: event.address,
            primary: event.primary,
            run_id: event.run_id,
            detail: event.detail,
            created_at: event.created_at,
        }
    }
}

/// The `data` of an event `lag`: each second while something lags, and once when nothing does any more.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LagSample {
    lagging: i64,
    transactions: i64,
    /// The worst.
    seconds: f64,
    bytes: i64,
    /// The worst hundred.
    mailboxes: Vec<LaggingMailbox>,
}

/// A mailbox that lags.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LaggingMailbox {
    pub(crate) address: String,
    pub(crate) primary: String,
    pub(crate) lag: Lag,
}

impl From<&Lagging> for LaggingMailbox {
    fn from(lagging: &Lagging) -> Self {
        Self {
            address: lagging.address.clone(),
            primary: lagging.primary.clone(),
            lag: Lag { transactions: lagging.transactions, seconds: lagging.seconds, bytes: lagging.bytes },
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListenParams {
    /// Only what concerns the mailbox with this address.
    mailbox: Option<String>,
    /// Name of its primary, where the address is protected on several.
    primary: Option<String>,
}

/// Events from now on, or from the header `Last-Event-ID` on.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(ListenParams, ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event heard")),
    responses(
        (status = 200, content_type = "text/event-stream", body = Event,
            description = "The event's name is its `kind`; `lag` carries a LagSample and no number"),
        (status = 404, body = Problem)))]
async fn listen(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<ListenParams>,
) -> Result<Response> {
    let mailbox_id = match given(params.mailbox.as_ref()) {
        Some(address) => Some(mailboxes::find(&api, &caller, address, params.primary.as_deref()).await?.mailbox_id),
        None => None,
    };
    let last = match headers.get(LAST_EVENT_ID) {
        Some(value) => Some(number(value.to_str().unwrap_or_default())?),
        None => None,
    };
    let (sender, receiver) = mpsc::channel(READY);
    let stream = Stream { api, caller, mailbox_id, sender };
    tokio::spawn(stream.run(last));
    let events = Sse::new(ReceiverStream::new(receiver));
    Ok(events.keep_alive(sse::KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn number(header: &str) -> Result<i64> {
    header.parse().map_err(|_| {
        ApiError::new(
            Kind::Malformed,
            "Last-Event-ID is the number of an event",
            "send the `id` of the last event heard, or leave it out to begin now",
        )
    })
}

/// One listener's connection.
struct Stream {
    api: Api,
    caller: Caller,
    mailbox_id: Option<i64>,
    sender: mpsc::Sender<Result<sse::Event, Infallible>>,
}

/// The listener went away, or the product is stopping.
struct Gone;

impl Stream {
    /// Sends until the listener goes away or the product stops.
    async fn run(self, last: Option<i64>) {
        let shutdown = self.api.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.sender.closed() => {}
            () = self.no_longer_good() => {}
            _ = self.relay(last) => {}
        }
    }

    /// Ends when what the listener proved themselves with does: a session that ended, a token revoked.
    async fn no_longer_good(&self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if matches!(self.caller.is_still_good(&self.api).await, Ok(false)) {
                return;
            }
        }
    }

    /// Whether something about this mailbox, or about none, is for this listener.
    fn is_for_me(&self, tenant_id: i64, mailbox: Option<(i64, &str, &str)>) -> bool {
        let inside = match mailbox {
            Some((_, address, group)) => self.caller.scope.covers(address, group),
            None => self.caller.scope.is_whole(),
        };
        let id = mailbox.map(|(id, ..)| id);
        tenant_id == self.caller.tenant.0 && inside && self.mailbox_id.is_none_or(|wanted| id == Some(wanted))
    }

    async fn relay(&self, last: Option<i64>) -> std::result::Result<(), Gone> {
        // Listen before looking: what happens in between is in the queue.
        let mut heard = self.api.events.subscribe();
        let mut sent = last.unwrap_or_else(|| self.api.events.sent());
        // Headers leave with the first line; without one a quiet system would look like a connection that hangs.
        self.send(sse::Event::default().comment("listening")).await?;
        loop {
            if self.api.events.sent() > sent {
                sent = self.catch_up(sent).await?;
            }
            loop {
                match heard.recv().await {
                    Ok(Heard::Event(event)) if event.event_id > sent => {
                        sent = event.event_id;
                        self.tell(&event).await?;
                    }
                    Ok(Heard::Event(_)) => {}
                    Ok(Heard::Lag(lagging)) => self.tell_lag(&lagging).await?,
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Err(Gone),
                }
            }
        }
    }

    /// Reads and sends what the hub has sent already, after number `sent`.
    async fn catch_up(&self, mut sent: i64) -> std::result::Result<i64, Gone> {
        let target = self.api.events.sent();
        while sent < target {
            let events = event::after(&self.api.pool, sent, BATCH).await.map_err(|error| {
                warn!(error = %error, "A listener could not be told what it missed; it has to come back");
                Gone
            })?;
            let Some(newest) = events.last().map(|event| event.event_id) else { break };
            for event in events.into_iter().take_while(|event| event.event_id <= target) {
                self.tell(&Arc::new(event)).await?;
            }
            sent = newest.min(target);
        }
        Ok(sent)
    }

    async fn tell(&self, event: &Arc<event::Event>) -> std::result::Result<(), Gone> {
        let names = (event.mailbox_id, event.address.as_deref(), event.group.as_deref());
        let mailbox = match names {
            (Some(id), Some(address), Some(group)) => Some((id, address, group)),
            _ => None,
        };
        if !self.is_for_me(event.tenant_id, mailbox) {
            return Ok(());
        }
        let data = Event::from(event::Event::clone(event));
        let frame = sse::Event::default().id(event.event_id.to_string()).event(&event.kind);
        self.send_json(frame, &data).await
    }

    async fn tell_lag(&self, lagging: &[Lagging]) -> std::result::Result<(), Gone> {
        let mine: Vec<&Lagging> = lagging
            .iter()
            .filter(|lag| self.is_for_me(lag.tenant_id, Some((lag.mailbox_id, &lag.address, &lag.group))))
            .collect();
        let sample = LagSample {
            lagging: i64::try_from(mine.len()).unwrap_or(i64::MAX),
            transactions: mine.iter().map(|lag| lag.transactions).sum(),
            seconds: mine.iter().map(|lag| lag.seconds).fold(0.0, f64::max),
            bytes: mine.iter().map(|lag| lag.bytes).sum(),
            mailboxes: mine.iter().take(NAMED).map(|lag| LaggingMailbox::from(*lag)).collect(),
        };
        self.send_json(sse::Event::default().event("lag"), &sample).await
    }

    async fn send_json(&self, frame: sse::Event, data: &impl Serialize) -> std::result::Result<(), Gone> {
        let frame = frame.json_data(data).map_err(|error| {
            warn!(error = %error, "An event could not be written as JSON");
            Gone
        })?;
        self.send(frame).await
    }

    async fn send(&self, frame: sse::Event) -> std::result::Result<(), Gone> {
        self.sender.send(Ok(frame)).await.map_err(|_| Gone)
    }
}
