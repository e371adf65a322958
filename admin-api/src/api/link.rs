//! `/link`: the connection between the two sites: who is paired, what it may use of the line, what went over it.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use understudy_database::{event, line, pairing};
use understudy_pairing::{Fingerprint, JoinToken, secret_digest};
use understudy_protocol::{calendar::Calendar, messages::Limits};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    idempotency::ShownOnce,
    state::Api,
};

/// How long a token is good unless something else is asked for, in seconds, and at most.
const GOOD_SECONDS: u32 = 600;
const LONGEST_SECONDS: u32 = 24 * 3600;
/// The longest name, and how many addresses a token carries.
const LONGEST_NAME: usize = 64;
const MOST_URLS: usize = 8;
const LONGEST_URL: usize = 256;
/// How many invitations are shown.
const SHOWN_INVITATIONS: i64 = 50;
/// The longest calendar.
const LONGEST_CALENDAR: usize = 1000;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(get))
        .routes(routes!(peers))
        .routes(routes!(revoke))
        .routes(routes!(invitations, invite))
        .routes(routes!(withdraw))
        .routes(routes!(limit))
}

/// The link as a whole.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkOverview {
    /// False where both gateways are on one machine and clear text was asked for.
    encrypted: bool,
    /// The recovery site's own keys; null before the recovery gateway first ran.
    authority: Option<LinkAuthority>,
    limits: LinkLimits,
    /// The ways to the recovery site as the source gateway sees them, the best first.
    paths: Vec<LinkPath>,
    /// Everything that ever went over the wire.
    bytes: Vec<LinkBytes>,
}

/// What the recovery site is recognised by.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkAuthority {
    /// SHA-256 of the certificate.
    fingerprint: String,
    expires_at: DateTime<Utc>,
    /// Of the recovery gateway's own certificate; it renews itself.
    served_fingerprint: String,
    served_expires_at: DateTime<Utc>,
    listen: String,
}

/// What the link may use of the line. An empty calendar is no limit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkLimits {
    /// All that is sent to the recovery site, in bytes on the wire.
    #[schema(example = "mon-fri 08:00-18:00: 2 MB/s, else unlimited")]
    wire: String,
    /// First copies alone.
    #[schema(example = "mon-fri 08:00-18:00: off, else unlimited")]
    seeding: String,
    changed_at: DateTime<Utc>,
    changed_by: String,
}

impl From<line::Limited> for LinkLimits {
    fn from(set: line::Limited) -> Self {
        Self { wire: set.wire, seeding: set.seeding, changed_at: set.changed_at, changed_by: set.changed_by }
    }
}

/// One way to the recovery site.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkPath {
    url: String,
    /// `used`, `standing_by`, `untried` or `down`.
    state: String,
    reason: Option<String>,
    since: DateTime<Utc>,
    round_trip_ms: Option<f64>,
}

impl From<line::PathRow> for LinkPath {
    fn from(row: line::PathRow) -> Self {
        Self { url: row.url, state: row.state, reason: row.reason, since: row.since, round_trip_ms: row.round_trip_ms }
    }
}

/// Bytes on the wire.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkBytes {
    /// `out`: to the recovery site; `in`: from it.
    direction: String,
    /// `live`, `seed`, `check`, `control`, or `overhead`: what TLS and HTTP/2 add.
    kind: String,
    bytes: i64,
}

impl From<line::BytesRow> for LinkBytes {
    fn from(row: line::BytesRow) -> Self {
        Self { direction: row.direction, kind: row.kind, bytes: row.bytes }
    }
}

/// A paired source gateway.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkPeer {
    name: String,
    /// `good`, `expired` or `revoked`.
    state: &'static str,
    /// SHA-256 of its latest certificate.
    fingerprint: String,
    expires_at: DateTime<Utc>,
    product_version: String,
    joined_at: DateTime<Utc>,
    joined_from: String,
    connected_at: Option<DateTime<Utc>>,
    connected_from: Option<String>,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: Option<String>,
}

impl From<pairing::Peer> for LinkPeer {
    fn from(peer: pairing::Peer) -> Self {
        let state = match peer.revoked_at {
            Some(_) => "revoked",
            None if peer.expires_at <= Utc::now() => "expired",
            None => "good",
        };
        Self {
            name: peer.name,
            state,
            fingerprint: fingerprint(&peer.fingerprint),
            expires_at: peer.expires_at,
            product_version: peer.product_version,
            joined_at: peer.joined_at,
            joined_from: peer.joined_from,
            connected_at: peer.connected_at,
            connected_from: peer.connected_from,
            revoked_at: peer.revoked_at,
            revoked_by: peer.revoked_by,
        }
    }
}

fn fingerprint(bytes: &[u8]) -> String {
    <[u8; 32]>::try_from(bytes).map_or_else(|_| String::new(), |bytes| Fingerprint(bytes).to_string())
}

/// A one-time token's record, without the token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkInvitation {
    id: Uuid,
    /// `open`, `used`, `expired` or `withdrawn`.
    state: &'static str,
    /// What the site will be called; empty: what it calls itself.
    name: String,
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl From<pairing::Invitation> for LinkInvitation {
    fn from(made: pairing::Invitation) -> Self {
        let state = match (made.used_at, made.withdrawn_at) {
            (Some(_), _) => "used",
            (None, Some(_)) => "withdrawn",
            (None, None) if made.expires_at <= Utc::now() => "expired",
            (None, None) => "open",
        };
        Self {
            id: made.invitation_id,
            state,
            name: made.name,
            created_by: made.created_by,
            created_at: made.created_at,
            expires_at: made.expires_at,
        }
    }
}

/// All invitations of late.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkInvitations {
    items: Vec<LinkInvitation>,
}

/// A token to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"name": "site-a", "urls": ["https://dr.example.org:8443"], "seconds": 600}))]
pub(crate) struct NewInvitation {
    /// Where the source site reaches the recovery gateway, the best first; where it listens, when left out.
    urls: Vec<String>,
    /// What the site will be called; what it calls itself, when left out.
    name: String,
    /// For how long the token is good; 600 when left out, at most a day.
    seconds: Option<u32>,
}

/// A token just made: the only time it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedInvitation {
    id: Uuid,
    expires_at: DateTime<Utc>,
    urls: Vec<String>,
    /// SHA-256 of the recovery site's authority; the other site shows the same one.
    fingerprint: String,
    /// Null when this answer is given again to the same `Idempotency-Key`.
    #[schema(value_type = Option<String>, example = "understudy-join-…")]
    token: String,
}

/// New limits; what is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"wire": "mon-fri 08:00-18:00: 2 MB/s, else unlimited", "seeding": "22:00-06:00: unlimited, else off"}))]
pub(crate) struct NewLimits {
    #[serde(default)]
    wire: Option<String>,
    #[serde(default)]
    seeding: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    limit: Option<i64>,
    after: Option<String>,
}

/// The link: its keys, limits, paths, and bytes on the wire.
#[utoipa::path(get, path = "/api/v1/link", tag = "link", responses((status = 200, body = LinkOverview)))]
async fn get(State(api): State<Api>) -> Result<Json<LinkOverview>> {
    let authority = pairing::authority(&api.pool).await?;
    Ok(Json(LinkOverview {
        encrypted: authority.as_ref().is_some_and(|shown| shown.encrypted),
        authority: authority.map(|shown| LinkAuthority {
            fingerprint: fingerprint(&shown.fingerprint),
            expires_at: shown.expires_at,
            served_fingerprint: fingerprint(&shown.served_fingerprint),
            served_expires_at: shown.served_expires_at,
            listen: shown.listen,
        }),
        limits: line::limits(&api.pool).await?.into(),
        paths: paths(&api).await?,
        bytes: line::bytes(&api.pool).await?.into_iter().map(LinkBytes::from).collect(),
    }))
}

/// The ways to the recovery site.
pub(crate) async fn paths(api: &Api) -> Result<Vec<LinkPath>> {
    Ok(line::paths(&api.pool).await?.into_iter().map(LinkPath::from).collect())
}

/// Bytes that ever went over the wire: to the recovery site, and from it.
pub(crate) async fn sums(api: &Api) -> Result<(i64, i64)> {
    let bytes = line::bytes(&api.pool).await?;
    let sum = |direction: &str| bytes.iter().filter(|row| row.direction == direction).map(|row| row.bytes).sum();
    Ok((sum("out"), sum("in")))
}

/// Paired sites, in the order they came; revoked ones too.
#[utoipa::path(get, path = "/api/v1/link/peers", tag = "link", params(Paging),
    responses((status = 200, body = Page<LinkPeer>)))]
async fn peers(State(api): State<Api>, Params(paging): Params<Paging>) -> Result<Json<Page<LinkPeer>>> {
    let limit = cursor::limit(paging.limit)?;
    let after: Option<Uuid> = cursor::decode(paging.after.as_deref())?;
    let peers = pairing::peers(&api.pool, after, limit + 1).await?;
    Ok(Json(Page::of(peers, limit, |peer| peer.peer_id, LinkPeer::from)))
}

/// Ends a pairing: its connections are cut within moments, and no certificate of it counts any more.
#[utoipa::path(delete, path = "/api/v1/link/peers/{name}", tag = "link", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn revoke(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<StatusCode> {
    let mut db = caller.begin(&api, "").await?;
    let Some(peer) = pairing::peer_named(&mut *db, &name).await? else {
        return Err(ApiError::not_found("paired site", &name, None, "`understudy link list` names them all"));
    };
    pairing::revoke(&mut db, peer, &caller.name).await?;
    let detail = json!({ "name": name, "by": caller.name });
    event::record(&mut *db, "link_revoked", None, None, &detail).await?;
    db.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The latest tokens, without the tokens themselves.
#[utoipa::path(get, path = "/api/v1/link/invitations", tag = "link",
    responses((status = 200, body = LinkInvitations)))]
async fn invitations(State(api): State<Api>) -> Result<Json<LinkInvitations>> {
    let made = pairing::invitations(&api.pool, SHOWN_INVITATIONS).await?;
    Ok(Json(LinkInvitations { items: made.into_iter().map(LinkInvitation::from).collect() }))
}

/// Makes a one-time token for `understudy link join` at the source site.
#[utoipa::path(post, path = "/api/v1/link/invitations", tag = "link", request_body = NewInvitation,
    responses((status = 201, body = CreatedInvitation), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn invite(State(api): State<Api>, caller: Caller, Body(new): Body<NewInvitation>) -> Result<Response> {
    let seconds = check(&new)?;
    let authority = pairing::authority(&api.pool).await?.filter(|authority| authority.encrypted).ok_or_else(|| {
        ApiError::new(
            Kind::Conflict,
            "no recovery gateway here takes paired sites: none has run yet, or it speaks in clear text on its own machine",
            "start `understudy recovery` without `plaintext`; `understudy up` needs no pairing, since both gateways are in it",
        )
    })?;
    let urls = if new.urls.is_empty() { vec![url_of(&authority.listen)?] } else { new.urls };
    let Ok(shown) = <[u8; 32]>::try_from(authority.fingerprint.as_slice()) else { return Err(unreadable()) };
    let token = JoinToken::new(urls, Fingerprint(shown));
    let expires_at = Utc::now() + TimeDelta::seconds(i64::from(seconds));
    let mut db = caller.begin(&api, "").await?;
    let digest = secret_digest(&token.secret);
    let made = pairing::invite(&mut *db, &digest, &new.name, &caller.name, expires_at).await?;
    let detail = json!({ "name": new.name, "by": caller.name, "expires_at": expires_at });
    event::record(&mut *db, "link_invited", None, None, &detail).await?;
    db.commit().await?;
    let body = CreatedInvitation {
        id: made.invitation_id,
        expires_at: made.expires_at,
        urls: token.urls.clone(),
        fingerprint: token.authority.to_string(),
        token: token.encode(),
    };
    Ok((StatusCode::CREATED, Extension(ShownOnce("token")), Json(body)).into_response())
}

fn unreadable() -> ApiError {
    ApiError::new(Kind::Internal, "the recovery site's fingerprint is unreadable", "start the recovery gateway again")
}

fn check(new: &NewInvitation) -> Result<u32> {
    let mut errors = Vec::new();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if new.name.len() > LONGEST_NAME || !new.name.chars().all(fits) {
        let detail = format!("a name has at most {LONGEST_NAME} letters, digits, dots, dashes and underscores");
        errors.push(ProblemItem::at("/name", detail));
    }
    let seconds = new.seconds.unwrap_or(GOOD_SECONDS);
    if !(1..=LONGEST_SECONDS).contains(&seconds) {
        errors.push(ProblemItem::at("/seconds", format!("a token is good for 1 to {LONGEST_SECONDS} seconds")));
    }
    if new.urls.len() > MOST_URLS {
        errors.push(ProblemItem::at("/urls", format!("a token carries at most {MOST_URLS} addresses")));
    }
    for (number, written) in new.urls.iter().enumerate() {
        let good = url::Url::parse(written)
            .is_ok_and(|url| url.scheme() == "https" && url.host_str().is_some_and(|host| !host.is_empty()));
        if !good || written.len() > LONGEST_URL || written.contains(char::is_whitespace) {
            errors.push(ProblemItem::at(format!("/urls/{number}"), "write it as https://HOST:PORT"));
        }
    }
    if errors.is_empty() { Ok(seconds) } else { Err(ApiError::invalid(errors)) }
}

/// Where the other site reaches what listens there, if that can be told.
fn url_of(listen: &str) -> Result<String> {
    let address: std::net::SocketAddr = listen.parse().map_err(|_| unreadable())?;
    if address.ip().is_unspecified() {
        return Err(ApiError::new(
            Kind::Invalid,
            format!(
                "the recovery gateway listens on every address ({listen}), so it is not known which of them the other site reaches"
            ),
            "name it: `understudy link invite --url https://HOST:PORT`, or `url` under [recovery]",
        ));
    }
    Ok(format!("https://{address}"))
}

/// Makes a token worthless before it is used. Safe to repeat.
#[utoipa::path(delete, path = "/api/v1/link/invitations/{id}", tag = "link", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn withdraw(State(api): State<Api>, caller: Caller, Name(id): Name) -> Result<StatusCode> {
    let mut db = caller.begin(&api, "").await?;
    let withdrawn = match id.parse::<Uuid>() {
        Ok(known) => pairing::withdraw(&mut *db, known).await?,
        Err(_) => false,
    };
    if !withdrawn {
        return Err(ApiError::not_found(
            "open invitation",
            &id,
            None,
            "`understudy link list` names them; a used one is ended by `understudy link revoke`",
        ));
    }
    db.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets what the link may use of the line; it holds within a second, also for what is under way.
#[utoipa::path(put, path = "/api/v1/link/limits", tag = "link", request_body = NewLimits,
    responses((status = 200, body = LinkLimits), (status = 422, body = Problem)))]
async fn limit(State(api): State<Api>, caller: Caller, Body(new): Body<NewLimits>) -> Result<Json<LinkLimits>> {
    let mut errors = Vec::new();
    for (pointer, written, may_be_off) in [("/wire", &new.wire, false), ("/seeding", &new.seeding, true)] {
        let Some(written) = written else { continue };
        if written.len() > LONGEST_CALENDAR {
            errors.push(ProblemItem::at(pointer, format!("a calendar has at most {LONGEST_CALENDAR} characters")));
            continue;
        }
        match written.parse::<Calendar>() {
            Err(error) => errors.push(ProblemItem::at(pointer, error.to_string())),
            Ok(calendar) if calendar.is_ever_off() && !may_be_off => errors.push(ProblemItem::at(
                pointer,
                "the link as a whole cannot be off: pause mailboxes instead, or limit seeding alone",
            )),
            Ok(_) => {}
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let mut db = caller.begin(&api, "").await?;
    let before = line::limits(&mut *db).await?;
    let limits = Limits { wire: new.wire.unwrap_or(before.wire), seeding: new.seeding.unwrap_or(before.seeding) };
    let set = line::set_limits(&mut db, &limits, &caller.name).await?;
    let detail = json!({ "wire": set.wire, "seeding": set.seeding, "by": caller.name });
    event::record(&mut *db, "link_limited", None, None, &detail).await?;
    db.commit().await?;
    Ok(Json(set.into()))
}
