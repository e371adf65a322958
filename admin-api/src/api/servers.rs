//! `/servers`: mail servers, how to reach them and what the last check found.

use std::{collections::HashMap, path::PathBuf};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use understudy_database::{
    health,
    server::{self, ServerTrouble, StoredServer},
    tenant,
};
use understudy_protocol::{messages, server as protocol};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{
        runs::{self, Run},
        server_rules,
    },
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, Result},
    extract::{Body, Name, Params},
    nearest::nearest,
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(get, change, remove)).routes(routes!(check))
}

/// What a mail server is to us.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ServerRole)]
pub(crate) enum Role {
    Primary,
    Standby,
}

impl From<Role> for protocol::ServerRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Primary => Self::Primary,
            Role::Standby => Self::Standby,
        }
    }
}

/// How one log-in opens every user's mailbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    #[serde(rename = "as")]
    method: Method,
    #[serde(default)]
    user: Option<String>,
    /// On the gateway that talks to the server. Secrets are never sent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password_file: Option<PathBuf>,
    /// How a master log-in is spelled; `{user}*{master}` unless given.
    #[serde(default)]
    form: Option<String>,
}

/// The kinds of log-in.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LoginMethod)]
enum Method {
    Master,
    Authzid,
    Each,
}

/// A server's management interface: a standby keeps the primary's UIDs through it, and a primary names its users.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manage {
    doveadm: String,
    #[schema(value_type = String)]
    key_file: PathBuf,
}

/// A server to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "mail-c", "role": "primary", "imap": "imaps://mail-c.example.org", "login": {"as": "master", "user": "understudy", "password_file": "/etc/understudy/mail-c.password"}}))]
pub(crate) struct NewServer {
    name: String,
    role: Role,
    /// `imaps://`, `imap://` (STARTTLS), or `imap+insecure://` on loopback.
    imap: String,
    /// Trust only these certificate authorities; a file on the gateway that talks to the server.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ca_file: Option<PathBuf>,
    login: Login,
    /// A primary's log-in that may write, for the way home; where there is none, `login` is tried.
    #[serde(default)]
    return_login: Option<Login>,
    #[serde(default)]
    lmtp: Option<String>,
    /// Where users hand in mail to send, for front doors: `smtp://` or `smtps://`.
    #[serde(default)]
    submission: Option<String>,
    #[serde(default)]
    manage: Option<Manage>,
    /// Whose mailbox checks of the server's health use.
    #[serde(default)]
    canary: Option<Canary>,
}

/// A mailbox that is there for checks.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CheckMailbox)]
struct Canary {
    address: String,
    /// A message may be appended there and removed again.
    #[serde(default)]
    write: bool,
    /// The user's own password, a file beside the recovery gateway: shows whether users reach the server past the front doors.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password_file: Option<PathBuf>,
}

/// What to change: members that are given replace the old ones as a whole, null takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"imap": "imaps://mail-a.example.org:993"}))]
pub(crate) struct ServerChange {
    #[serde(default)]
    imap: Option<String>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<String>)]
    ca_file: Option<Option<PathBuf>>,
    #[serde(default)]
    login: Option<Login>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<Login>)]
    return_login: Option<Option<Login>>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<String>)]
    lmtp: Option<Option<String>>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<String>)]
    submission: Option<Option<String>>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<Manage>)]
    manage: Option<Option<Manage>>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<Canary>)]
    canary: Option<Option<Canary>>,
}

/// Tells null, `Some(None)`, from a member that is not there, `None`.
#[expect(clippy::option_option, reason = "a member can be absent, null or given")]
fn given_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A mail server, as every interface shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Server {
    name: String,
    role: Role,
    imap: String,
    #[schema(value_type = Option<String>)]
    ca_file: Option<PathBuf>,
    login: Login,
    return_login: Option<Login>,
    lmtp: Option<String>,
    submission: Option<String>,
    manage: Option<Manage>,
    canary: Option<Canary>,
    /// Comes from the configuration file, which is the only place to change it.
    configured: bool,
    /// How many protected mailboxes use it.
    mailboxes: i64,
    created_at: DateTime<Utc>,
    last_checked_at: Option<DateTime<Utc>>,
    last_check: Option<Check>,
    /// What stands in the way, if anything does.
    trouble: Option<Trouble>,
    /// Whether it is there, as those who watch it find; null until a protected mailbox uses it.
    health: Option<Verdict>,
}

/// Whether a server is there.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ServerVerdict)]
struct Verdict {
    /// `up`, `suspect` or `down`.
    verdict: String,
    #[serde(default)]
    reason: String,
    since: Option<DateTime<Utc>>,
    /// What each observer says: `up`, `down`, `unsure` or `silent`.
    #[serde(default)]
    #[schema(value_type = Object)]
    votes: Value,
}

/// What a server can do, and what each thing means for mirroring.
#[derive(Debug, Serialize, ToSchema)]
struct Check {
    capabilities: Vec<String>,
    findings: Vec<Finding>,
}

/// One line of a check.
#[derive(Debug, Serialize, ToSchema)]
struct Finding {
    /// `ok`, `note`, `warning` or `failed`.
    level: String,
    name: String,
    meaning: String,
    remedy: String,
}

/// What stands in the way at a server.
#[derive(Debug, Serialize, ToSchema)]
struct Trouble {
    kind: String,
    reason: String,
    remedy: String,
    /// How many mailboxes feel it.
    mailboxes: i64,
}

impl From<NewServer> for protocol::Server {
    fn from(new: NewServer) -> Self {
        Self {
            name: new.name,
            role: new.role.into(),
            imap: new.imap,
            ca_file: new.ca_file,
            login: new.login.into(),
            return_login: new.return_login.map(Into::into),
            lmtp: new.lmtp,
            submission: new.submission,
            manage: new.manage.map(Into::into),
            canary: new.canary.map(Into::into),
        }
    }
}

impl From<Login> for protocol::LoginConfig {
    fn from(login: Login) -> Self {
        let method = match login.method {
            Method::Master => protocol::LoginMethod::Master,
            Method::Authzid => protocol::LoginMethod::Authzid,
            Method::Each => protocol::LoginMethod::Each,
        };
        Self { method, user: login.user, password_file: login.password_file, form: login.form }
    }
}

impl From<protocol::LoginConfig> for Login {
    fn from(login: protocol::LoginConfig) -> Self {
        let method = match login.method {
            protocol::LoginMethod::Master => Method::Master,
            protocol::LoginMethod::Authzid => Method::Authzid,
            protocol::LoginMethod::Each => Method::Each,
        };
        Self { method, user: login.user, password_file: login.password_file, form: login.form }
    }
}

impl From<Manage> for protocol::Manage {
    fn from(manage: Manage) -> Self {
        Self { doveadm: manage.doveadm, key_file: manage.key_file }
    }
}

impl From<protocol::Manage> for Manage {
    fn from(manage: protocol::Manage) -> Self {
        Self { doveadm: manage.doveadm, key_file: manage.key_file }
    }
}

impl From<Canary> for protocol::Canary {
    fn from(canary: Canary) -> Self {
        Self { address: canary.address, write: canary.write, password_file: canary.password_file }
    }
}

impl From<protocol::Canary> for Canary {
    fn from(canary: protocol::Canary) -> Self {
        Self { address: canary.address, write: canary.write, password_file: canary.password_file }
    }
}

impl From<messages::ServerCheck> for Check {
    fn from(check: messages::ServerCheck) -> Self {
        let finding = |finding: messages::Finding| Finding {
            level: finding.level,
            name: finding.name,
            meaning: finding.meaning,
            remedy: finding.remedy,
        };
        Self { capabilities: check.capabilities, findings: check.findings.into_iter().map(finding).collect() }
    }
}

impl Server {
    /// A server with the trouble its mailboxes have, or else the reason why the last check could not be made.
    fn shown(stored: StoredServer, trouble: Option<&ServerTrouble>, is_shared: bool) -> Self {
        let felt = trouble.map(|felt| Trouble {
            kind: felt.kind.clone(),
            reason: felt.reason.clone(),
            remedy: felt.remedy.clone(),
            mailboxes: felt.mailboxes,
        });
        let (last_check, failed) = match stored.last_check {
            Some(Ok(check)) => (Some(check.into()), None),
            Some(Err(trouble)) => (
                None,
                Some(Trouble { kind: trouble.kind, reason: trouble.reason, remedy: trouble.remedy, mailboxes: 0 }),
            ),
            None => (None, None),
        };
        let mut definition = stored.definition;
        if is_shared {
            // How the provider reaches it is the provider's own.
            definition = protocol::Server {
                login: protocol::LoginConfig { user: None, password_file: None, ..definition.login },
                ca_file: None,
                return_login: None,
                manage: None,
                canary: None,
                ..definition
            };
        }
        Self {
            name: definition.name,
            role: match definition.role {
                protocol::ServerRole::Primary => Role::Primary,
                protocol::ServerRole::Standby => Role::Standby,
            },
            imap: definition.imap,
            ca_file: definition.ca_file,
            login: definition.login.into(),
            return_login: definition.return_login.map(Into::into),
            lmtp: definition.lmtp,
            submission: definition.submission,
            manage: definition.manage.map(Into::into),
            canary: definition.canary.map(Into::into),
            configured: stored.configured,
            mailboxes: stored.mailboxes,
            created_at: stored.created_at,
            last_checked_at: stored.last_checked_at,
            last_check,
            trouble: felt.or(failed),
            health: None,
        }
    }
}

/// Servers with their troubles. Of one that the provider shares, a customer learns what their own mailboxes tell.
pub(crate) async fn shown_all(api: &Api, caller: &Caller, mut stored: Vec<StoredServer>) -> Result<Vec<Server>> {
    if stored.iter().any(|server| is_foreign(caller, server)) {
        let own: HashMap<i64, i64> = server::mailboxes_of(&api.pool, caller.tenant).await?.into_iter().collect();
        for server in stored.iter_mut().filter(|server| is_foreign(caller, server)) {
            server.mailboxes = own.get(&server.server_id).copied().unwrap_or(0);
            server.last_check = None;
        }
    }
    let troubles = server::troubles(&api.pool, caller.tenant).await?;
    let troubles: HashMap<i64, ServerTrouble> = troubles.into_iter().map(|t| (t.server_id, t)).collect();
    let mut all = Vec::with_capacity(stored.len());
    for stored in stored {
        let (id, is_shared) = (stored.server_id, is_foreign(caller, &stored));
        let mut shown = Server::shown(stored, troubles.get(&id), is_shared);
        shown.health = health::health(&api.pool, id).await?.and_then(|known| serde_json::from_value(known).ok());
        all.push(shown);
    }
    Ok(all)
}

async fn shown(api: &Api, caller: &Caller, stored: StoredServer) -> Result<Server> {
    let mut shown = shown_all(api, caller, vec![stored]).await?;
    shown.pop().ok_or_else(ApiError::unauthorized)
}

/// The provider's, and the caller is not of the provider.
fn is_foreign(caller: &Caller, server: &StoredServer) -> bool {
    caller.home != tenant::PROVIDER && server.tenant_id != caller.home.0
}

/// Refuses what could reach other customers' mailboxes on a server that the caller only shares.
pub(crate) fn refuse_foreign(caller: &Caller, server: &StoredServer) -> Result<()> {
    if !is_foreign(caller, server) {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::Forbidden,
        format!("the server `{}` is the provider's", server.definition.name),
        "ask your provider: only their administrators change it, look into it, and protect mailboxes on it",
    ))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    role: Option<Role>,
    limit: Option<i64>,
    after: Option<String>,
}

/// What to try.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"address": "ana@example.org"}))]
pub(crate) struct CheckRequest {
    /// Log in as this user too.
    #[serde(default)]
    address: Option<String>,
}

/// Mail servers, by name.
#[utoipa::path(get, path = "/api/v1/servers", tag = "servers", params(ListParams),
    responses((status = 200, body = Page<Server>)))]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Server>>> {
    let limit = cursor::limit(params.limit)?;
    let after: Option<String> = cursor::decode(params.after.as_deref())?;
    let role = params.role.map(Into::into);
    let stored = server::list(&api.pool, caller.tenant, role, after.as_deref(), limit + 1).await?;
    let page = Page::of(stored, limit, |stored| stored.definition.name.clone(), |stored| stored);
    Ok(Json(Page { items: shown_all(&api, &caller, page.items).await?, next: page.next }))
}

/// Adds a mail server. Safe to repeat.
#[utoipa::path(post, path = "/api/v1/servers", tag = "servers", request_body = NewServer,
    responses((status = 201, body = Server), (status = 200, description = "It was there, just so", body = Server),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn add(State(api): State<Api>, caller: Caller, Body(new): Body<NewServer>) -> Result<Response> {
    let definition = protocol::Server::from(new);
    refuse_broken(&definition)?;
    if let Some(there) = server::get(&api.pool, caller.tenant, &definition.name).await? {
        if there.definition == definition {
            return Ok(Json(shown(&api, &caller, there).await?).into_response());
        }
        return Err(taken(&definition.name));
    }
    let mut transaction = caller.begin(&api, "").await?;
    let stored = server::insert(&mut transaction, caller.tenant, &definition).await.map_err(|error| {
        if error.constraint() == Some("server_name_unique") { taken(&definition.name) } else { error.into() }
    })?;
    transaction.commit().await?;
    let location = [(header::LOCATION, format!("/api/v1/servers/{}", definition.name))];
    Ok((StatusCode::CREATED, location, Json(shown(&api, &caller, stored).await?)).into_response())
}

fn taken(name: &str) -> ApiError {
    let detail = format!("there is a server `{name}` already, defined otherwise");
    ApiError::new(Kind::Conflict, detail, "choose another name, or change that one with PATCH")
}

fn refuse_broken(definition: &protocol::Server) -> Result<()> {
    let problems = server_rules::problems(definition);
    if problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(problems)) }
}

/// One mail server.
#[utoipa::path(get, path = "/api/v1/servers/{name}", tag = "servers", params(("name" = String, Path)),
    responses((status = 200, body = Server), (status = 404, body = Problem)))]
async fn get(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<Json<Server>> {
    let stored = find(&api, &caller, &name).await?;
    Ok(Json(shown(&api, &caller, stored).await?))
}

/// Changes how a server is reached. Its mailboxes are tried again at once.
#[utoipa::path(patch, path = "/api/v1/servers/{name}", tag = "servers", params(("name" = String, Path)),
    request_body = ServerChange,
    responses((status = 200, body = Server), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn change(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(change): Body<ServerChange>,
) -> Result<Json<Server>> {
    let stored = find(&api, &caller, &name).await?;
    refuse_foreign(&caller, &stored)?;
    refuse_configured(&stored)?;
    let changed = changed(stored.definition.clone(), change);
    refuse_broken(&changed)?;
    if changed == stored.definition {
        return Ok(Json(shown(&api, &caller, stored).await?));
    }
    let mut transaction = caller.begin(&api, "").await?;
    let stored = server::update(&mut transaction, stored.server_id, &changed).await?;
    transaction.commit().await?;
    Ok(Json(shown(&api, &caller, stored).await?))
}

fn changed(definition: protocol::Server, change: ServerChange) -> protocol::Server {
    protocol::Server {
        imap: change.imap.unwrap_or(definition.imap),
        ca_file: change.ca_file.unwrap_or(definition.ca_file),
        login: change.login.map_or(definition.login, Into::into),
        return_login: change.return_login.map_or(definition.return_login, |login| login.map(Into::into)),
        lmtp: change.lmtp.unwrap_or(definition.lmtp),
        submission: change.submission.unwrap_or(definition.submission),
        manage: change.manage.map_or(definition.manage, |manage| manage.map(Into::into)),
        canary: change.canary.map_or(definition.canary, |canary| canary.map(Into::into)),
        name: definition.name,
        role: definition.role,
    }
}

fn refuse_configured(stored: &StoredServer) -> Result<()> {
    if !stored.configured {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::Conflict,
        format!("the server `{}` comes from the configuration file", stored.definition.name),
        "change its `[[server]]` section there and restart `understudy up`",
    ))
}

/// Removes a server that no mailbox uses.
#[utoipa::path(delete, path = "/api/v1/servers/{name}", tag = "servers", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<StatusCode> {
    let stored = find(&api, &caller, &name).await?;
    refuse_foreign(&caller, &stored)?;
    refuse_configured(&stored)?;
    let mut transaction = caller.begin(&api, "").await?;
    if server::delete(&mut transaction, stored.server_id).await? {
        transaction.commit().await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let (detail, remedy) = match stored.mailboxes {
        0 => (
            format!("the records of mailboxes once protected on `{name}` are still kept"),
            "leave it: a server without protected mailboxes is not connected to",
        ),
        mailboxes => (
            format!("the server `{name}` is used by {mailboxes} protected mailboxes"),
            "unprotect them first: `understudy mailbox list --server` names them",
        ),
    };
    Err(ApiError::new(Kind::Conflict, detail, remedy))
}

/// Tries a server: what it can do, and what each thing means for mirroring.
#[utoipa::path(post, path = "/api/v1/servers/{name}/check", tag = "servers", params(("name" = String, Path)),
    request_body = CheckRequest,
    responses((status = 202, body = Run), (status = 404, body = Problem)))]
async fn check(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(request): Body<CheckRequest>,
) -> Result<Response> {
    let stored = find(&api, &caller, &name).await?;
    refuse_foreign(&caller, &stored)?;
    let request = json!({"address": request.address});
    Ok(runs::accepted(runs::ask_about_server(&api, &caller, "check", &stored, request).await?))
}

/// The server of this name.
pub(crate) async fn find(api: &Api, caller: &Caller, name: &str) -> Result<StoredServer> {
    if let Some(stored) = server::get(&api.pool, caller.tenant, name).await? {
        return Ok(stored);
    }
    let names = server::names(&api.pool, caller.tenant).await?;
    let nearest = nearest(name, names.iter().map(|(known, _, _)| known.as_str()));
    Err(ApiError::not_found("server", name, nearest, "`understudy server list` names them all"))
}
