//! The routes the source gateway calls, as `protocol::messages` lists them.
//!
//! Keeps true: nothing is read of a request before who sent it has been checked.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use understudy_database::{
    content, event, journal, line,
    link::{self, Greeted},
    status::LINK_SILENCE,
};
use understudy_failpoint as failpoint;
use understudy_protocol::{
    MailboxId, Seq, TenantId,
    codec::{self, CodecError},
    messages::{
        Directives, GATEWAY_HEADER, Heartbeat, Hello, InventoryFrame, LINK_VERSION, Lacks, MailboxReport,
        OLDEST_LINK_VERSION, Report, Trouble, Welcome,
    },
};
use uuid::Uuid;

use crate::{
    alarm::Alarm,
    bounds::Bounds,
    directives::DirectiveBoard,
    dispatcher::Applying,
    ingest, known,
    outage::Looks,
    pairing::Peer,
    serve::Front,
    store::{Store, database_full},
};

/// A heartbeat is held open no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest body that is not streamed, in bytes.
const MESSAGE_BYTES: usize = 16 << 20;

/// What the routes work on.
#[derive(Clone)]
pub(crate) struct LinkState {
    pub(crate) pool: PgPool,
    pub(crate) store: Store,
    pub(crate) directives: DirectiveBoard,
    pub(crate) applying: Applying,
    pub(crate) alarm: Alarm,
    pub(crate) looks: Looks,
    pub(crate) front: Front,
    /// Only where the link is in clear text.
    pub(crate) secret: Option<Arc<SecretString>>,
    pub(crate) current: Current,
    pub(crate) before: ingest::Before,
    pub(crate) bounds: Bounds,
}

/// The process life of the source gateway that is listened to, as far as it is remembered here. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Current(Arc<Mutex<Option<Uuid>>>);

impl Current {
    fn set(&self, gateway: Uuid) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gateway);
    }

    async fn is(&self, pool: &PgPool, gateway: Uuid) -> understudy_database::Result<bool> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // After our own restart the database knows.
        let is = known == Some(gateway) || link::is_current(pool, gateway).await?;
        if is && known != Some(gateway) {
            self.set(gateway);
        }
        Ok(is)
    }
}

/// The link's routes. Held heartbeats end with `shutdown`.
pub(crate) fn router(state: LinkState, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/link/v1/hello", post(hello))
        .route("/link/v1/ship", post(ship))
        .route("/link/v1/heartbeat", post(move |state, body| heartbeat(state, body, shutdown)))
        .route("/link/v1/known/{mailbox}", post(known_of))
        .route("/link/v1/lacks", post(lacks))
        .route("/link/v1/report", post(report))
        .route("/link/v1/inventory/{id}", post(inventory))
        .route("/link/v1/content/{id}", post(content_again))
        .route("/link/v1/renew", post(renew))
        // Whoever is let in at all may ask whether somebody is here.
        .route("/link/v1/ping", post(|| async { StatusCode::NO_CONTENT }))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), authenticate))
        .with_state(state)
}

async fn authenticate(State(state): State<LinkState>, request: Request, next: Next) -> Response {
    let proven = match &state.secret {
        // Proven in the handshake.
        None => request.extensions().get::<Peer>().is_some(),
        Some(secret) => {
            let expected = blake3::hash(format!("Bearer {}", secret.expose_secret()).as_bytes());
            let given = request.headers().get(header::AUTHORIZATION).map(|value| blake3::hash(value.as_bytes()));
            // Comparing hashes takes the same time wherever they differ (`blake3::Hash` compares in constant time).
            given == Some(expected)
        }
    };
    if !proven {
        tracing::warn!("Refused a request on the link: wrong secret");
        return (StatusCode::UNAUTHORIZED, "the link secret is not ours").into_response();
    }
    // A gateway that is not, or no longer, listened to may only introduce itself. One that names no life is an older one.
    let gateway = request.headers().get(GATEWAY_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(gateway) =
        gateway.filter(|_| !matches!(request.uri().path(), "/link/v1/hello" | "/link/v1/renew" | "/link/v1/ping"))
    {
        match state.current.is(&state.pool, gateway).await {
            Ok(true) => {}
            Ok(false) => {
                let reason = "another source gateway has taken over; introduce yourself again";
                return (StatusCode::FORBIDDEN, reason).into_response();
            }
            Err(error) => return LinkError::from(error).into_response(),
        }
    }
    next.run(request).await
}

/// A body that is no stream. So many are read at once; others wait.
struct Message(Bytes);

impl FromRequest<LinkState> for Message {
    type Rejection = Response;

    async fn from_request(request: Request, state: &LinkState) -> Result<Self, Response> {
        let _turn = state.bounds.message().await;
        let body = Bytes::from_request(request, state).await;
        body.map(Self).map_err(IntoResponse::into_response)
    }
}

/// Why a request was not served.
enum LinkError {
    Theirs(StatusCode, String),
    /// Said in full, for the people who look at the mailbox.
    NoRoom(Trouble),
    Ours(anyhow::Error),
}

impl IntoResponse for LinkError {
    fn into_response(self) -> Response {
        match self {
            Self::Theirs(status, reason) => (status, reason).into_response(),
            Self::NoRoom(trouble) => {
                (StatusCode::INSUFFICIENT_STORAGE, codec::encode(&trouble).unwrap_or_default()).into_response()
            }
            Self::Ours(error) => {
                tracing::error!(error = format!("{error:#}"), "Could not serve the source gateway");
                (StatusCode::SERVICE_UNAVAILABLE, "the recovery gateway could not; its log says why").into_response()
            }
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for LinkError {
    fn from(error: E) -> Self {
        let error = error.into();
        match database_full(error.as_ref()) {
            Some(trouble) => Self::NoRoom(trouble),
            None => Self::Ours(error),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, LinkError> {
    codec::decode(body).map_err(|error| LinkError::Theirs(StatusCode::BAD_REQUEST, error.to_string()))
}

fn answer<T: Serialize>(value: &T) -> Result<Response, LinkError> {
    Ok(codec::encode(value)?.into_response())
}

async fn hello(State(state): State<LinkState>, Message(body): Message) -> Result<Response, LinkError> {
    let hello: Hello = read(&body)?;
    if hello.link_version < OLDEST_LINK_VERSION {
        let reason = format!(
            "the source gateway speaks version {} of the link; this recovery gateway needs {OLDEST_LINK_VERSION} to \
             {LINK_VERSION}: upgrade the source gateway",
            hello.link_version
        );
        return Err(LinkError::Theirs(StatusCode::UPGRADE_REQUIRED, reason));
    }
    if let Greeted::Refused { heard_ago, news } = link::greeted(&state.pool, &hello, LINK_SILENCE).await? {
        let reason = format!(
            "another source gateway works for this recovery site, and was heard of {heard_ago} s ago: stop one of them. \
             This one is listened to once the other has been silent for {} s",
            LINK_SILENCE.as_secs()
        );
        if news {
            tracing::warn!(installation = %hello.installation, "Turned a second source gateway away");
            let detail = json!({ "installation": hello.installation, "reason": reason });
            event::record(&state.pool, "source_refused", None, None, &detail).await?;
        }
        return Err(LinkError::Theirs(StatusCode::FORBIDDEN, reason));
    }
    state.current.set(hello.gateway);
    tracing::info!(product_version = hello.product_version, "A source gateway connected");
    answer(&Welcome {
        link_version: hello.link_version.min(LINK_VERSION),
        hands_over: state.store.takes_over(),
        takes_parts: true,
        keeps_seconds: state.store.keeps().as_secs(),
        product_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Whose contents a shipment brings. An older source gateway does not say.
#[derive(serde::Deserialize)]
struct ShipmentOf {
    tenant: Option<i64>,
}

async fn ship(State(state): State<LinkState>, Query(of): Query<ShipmentOf>, body: Body) -> Result<Response, LinkError> {
    let tenant = of.tenant.map(TenantId);
    let _turn = state.bounds.shipment().await;
    let target = ingest::Target { pool: &state.pool, store: &state.store, before: &state.before, tenant };
    let shipped = ingest::ingest(target, state.bounds.frames(), body.into_data_stream()).await;
    state.store.note_room(shipped.as_ref().err().and_then(ingest::IngestError::no_room).as_ref()).await;
    let shipped = shipped.map_err(refused)?;
    for ack in &shipped.acks {
        state.applying.received(ack.mailbox);
    }
    failpoint::here("ack.ready");
    answer(&shipped)
}

/// Why something was not taken in.
fn refused(error: ingest::IngestError) -> LinkError {
    if let Some(trouble) = error.no_room() {
        LinkError::NoRoom(trouble)
    } else if let ingest::IngestError::TooMuchHeld(error) = error {
        tracing::warn!(error = %error, "Put a shipment off");
        LinkError::Theirs(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    } else if error.is_theirs() {
        tracing::warn!(error = %error, "Refused a shipment");
        LinkError::Theirs(StatusCode::BAD_REQUEST, error.to_string())
    } else {
        LinkError::Ours(error.into())
    }
}

async fn heartbeat(
    State(state): State<LinkState>,
    Message(body): Message,
    shutdown: CancellationToken,
) -> Result<Response, LinkError> {
    let heartbeat: Heartbeat = read(&body)?;
    link::heard(&state.pool).await?;
    if heartbeat.wait_ms > 0 {
        state.alarm.heard(&heartbeat.unproven);
    }
    if let Some(report) = &heartbeat.link {
        let mut db = state.pool.begin().await?;
        line::reported(&mut db, heartbeat.gateway, report).await?;
        db.commit().await?;
    }
    state.looks.heard(&heartbeat.looks);
    for report in &heartbeat.mailboxes {
        match take_report(&state, report, true).await {
            // An event is one more row: how the mailbox fares is said all the same, where there is room for that.
            Err(LinkError::NoRoom(_)) => take_report(&state, report, false).await?,
            taken => taken?,
        }
    }
    if heartbeat.wait_ms == 0 {
        return answer(&Directives { version: heartbeat.seen_version, ..Directives::default() });
    }
    let patience = Duration::from_millis(heartbeat.wait_ms).min(LONGEST_WAIT);
    tokio::select! {
        directives = state.directives.newer_than(heartbeat.seen_version, patience) => answer(&directives?),
        () = shutdown.cancelled() => {
            Err(LinkError::Theirs(StatusCode::SERVICE_UNAVAILABLE, "the recovery gateway is stopping".to_owned()))
        }
    }
}

async fn take_report(state: &LinkState, report: &MailboxReport, events: bool) -> Result<(), LinkError> {
    let mut db = state.pool.begin().await?;
    let news = link::reported(&mut *db, report).await?;
    if news && events {
        let detail = json!({ "side": "primary", "trouble": report.trouble });
        event::record(&mut *db, "trouble", Some(report.mailbox), None, &detail).await?;
    }
    if let Some(unreadable) = &report.unreadable {
        link::unreadable(&mut db, report.mailbox, unreadable).await?;
    }
    if report.seeded && journal::finish_seeding(&mut db, report.mailbox).await? {
        event::record(&mut *db, "state", Some(report.mailbox), None, &json!({ "state": "mirroring" })).await?;
    }
    db.commit().await?;
    failpoint::here("report.taken");
    Ok(())
}

/// What the source was told of a mailbox.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Had {
    received: i64,
}

async fn known_of(
    State(state): State<LinkState>,
    Path(mailbox): Path<i64>,
    Query(had): Query<Had>,
) -> Result<Response, LinkError> {
    let mailbox = MailboxId(mailbox);
    match known::known(&state.pool, mailbox, Seq(had.received)).await? {
        known::Answer::Frames(frames) => Ok(Body::from_stream(frames).into_response()),
        known::Answer::NotYet => {
            state.applying.received(mailbox);
            let reason = "what was received is still being applied; ask again".to_owned();
            Err(LinkError::Theirs(StatusCode::CONFLICT, reason))
        }
        known::Answer::Unknown => {
            Err(LinkError::Theirs(StatusCode::NOT_FOUND, "nobody protects this mailbox".to_owned()))
        }
    }
}

async fn lacks(State(state): State<LinkState>, Message(body): Message) -> Result<Response, LinkError> {
    let Lacks { tenant, parts } = read(&body)?;
    state.store.kept().await;
    let there = content::places(&state.pool, tenant, &parts).await?;
    let parts = parts.into_iter().filter(|part| !there.contains_key(part)).collect();
    answer(&Lacks { tenant, parts })
}

async fn report(State(state): State<LinkState>, Message(body): Message) -> Result<(), LinkError> {
    let report: Report = read(&body)?;
    state.directives.answered(report);
    Ok(())
}

/// A message that was asked for, since what rests of it is damaged.
async fn content_again(State(state): State<LinkState>, Path(id): Path<Uuid>, body: Body) -> Result<(), LinkError> {
    let Some((tenant, wanted)) = state.directives.content(id) else {
        return Err(LinkError::Theirs(StatusCode::NOT_FOUND, "nobody asked for this".to_owned()));
    };
    ingest::content_again(&state.pool, &state.store, tenant, wanted, body.into_data_stream()).await.map_err(refused)
}

/// A paired site asks for its next certificate.
async fn renew(State(state): State<LinkState>, peer: Option<Extension<Peer>>, Message(body): Message) -> Response {
    let (Front::Paired(pairing), Some(Extension(peer))) = (&state.front, peer) else {
        return (StatusCode::NOT_FOUND, "this link has no certificates").into_response();
    };
    pairing.renew(peer, &body).await.map(axum::Json).into_response()
}

async fn inventory(State(state): State<LinkState>, Path(id): Path<Uuid>, body: Body) -> Result<(), LinkError> {
    let Some(frames) = state.directives.frames(id) else {
        return Err(LinkError::Theirs(StatusCode::NOT_FOUND, "nobody asked for this".to_owned()));
    };
    let broken = |reason: String| LinkError::Theirs(StatusCode::BAD_REQUEST, reason);
    let mut body = body.into_data_stream();
    let mut buffer = bytes::BytesMut::new();
    while let Some(piece) = body.next().await {
        buffer.extend_from_slice(&piece.map_err(|error| broken(error.to_string()))?);
        while let Some((frame, taken)) =
            codec::decode_frame::<InventoryFrame>(&buffer).map_err(|error: CodecError| broken(error.to_string()))?
        {
            let _ = buffer.split_to(taken);
            if frames.send(frame).await.is_err() {
                return Err(LinkError::Theirs(StatusCode::GONE, "nobody waits for this any more".to_owned()));
            }
        }
    }
    if !buffer.is_empty() {
        return Err(broken(CodecError::Truncated.to_string()));
    }
    Ok(())
}
