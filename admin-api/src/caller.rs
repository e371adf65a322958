//! Who asks: a person's session, a token, or the system user at the local socket; and the SQL transactions they write in.
//!
//! In: `Authorization`, or the session's cookie. Out: a [`Caller`] with role and scope.
//! Keeps true: a cookie alone changes nothing, it takes the header that only our own page can send; what a caller writes is in
//! the audit, with their name, or it is not written.

use std::ops::{Deref, DerefMut};

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, Method, header, request::Parts},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sqlx::{PgConnection, Postgres, Transaction};
use understudy_database::{
    audit,
    scope::Scope,
    session::{self, Live},
    tenant, token,
};
use understudy_protocol::{Digest, TenantId};
use uuid::Uuid;

use crate::{
    auth::Role,
    error::{ApiError, Kind, Result},
    state::Api,
};

/// With which the page proves that a request is its own.
pub(crate) const CSRF: HeaderName = HeaderName::from_static("understudy-csrf");
/// With which the provider's people name the tenant they act for.
pub(crate) const TENANT: HeaderName = HeaderName::from_static("understudy-tenant");

/// With which a request that has no `reason` in its body says why.
pub(crate) const REASON: HeaderName = HeaderName::from_static("understudy-reason");
/// Of a reason, so many characters are noted.
const LONGEST_REASON: usize = 1000;

/// Whoever sent a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The tenant acted for; the one of `scope`.
    pub(crate) tenant: TenantId,
    /// The tenant the caller belongs to.
    pub(crate) home: TenantId,
    /// Which mailboxes the caller may see.
    pub(crate) scope: Scope,
    /// For the record: `user NAME`, `token NAME`, or `local administrator`.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) by: By,
    /// Why, where the request's header says so.
    why: String,
}

/// How a caller proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The local socket.
    Local,
    Token {
        digest: Digest,
    },
    Session {
        account_id: i64,
        session_id: Uuid,
        digest: Digest,
    },
}

/// Marks what came over the unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

impl Caller {
    /// An SQL transaction for what the caller changes. The audit notes who and why: what the body says, or else the header.
    pub(crate) async fn begin(&self, api: &Api, why: &str) -> Result<Acting> {
        let why = if why.is_empty() { &self.why } else { why };
        Acting::begin(api, self.tenant, &self.name, why).await
    }

    /// Whoever holds this session.
    pub(crate) fn of_session(live: Live, digest: Digest) -> Self {
        let (home, role) = (TenantId(live.tenant_id), Role::from_column(&live.role));
        Self {
            tenant: home,
            home,
            scope: scope_of(home, role, live.group, live.mailbox),
            name: format!("user {}", live.name),
            role,
            by: By::Session { account_id: live.account_id, session_id: live.session_id, digest },
            why: String::new(),
        }
    }

    /// The account, where a person asks.
    pub(crate) fn account_id(&self) -> Option<i64> {
        match self.by {
            By::Session { account_id, .. } => Some(account_id),
            By::Local | By::Token { .. } => None,
        }
    }

    /// Whether what the caller proved themselves with still holds; for connections that stay open.
    pub(crate) async fn is_still_good(&self, api: &Api) -> Result<bool> {
        Ok(match self.by {
            By::Local => true,
            By::Token { digest } => token::bearer(&api.pool, &digest).await?.is_some(),
            By::Session { digest, .. } => session::live(&api.pool, &digest).await?.is_some(),
        })
    }
}

/// An SQL transaction in somebody's name.
pub(crate) struct Acting(Transaction<'static, Postgres>);

impl Acting {
    pub(crate) async fn begin(api: &Api, tenant: TenantId, who: &str, why: &str) -> Result<Self> {
        let mut transaction = api.pool.begin().await?;
        audit::act_as(&mut transaction, tenant, who, why).await?;
        Ok(Self(transaction))
    }

    /// Seals what the audit noted, and commits.
    pub(crate) async fn commit(mut self) -> Result<()> {
        audit::seal(&mut self.0).await?;
        Ok(self.0.commit().await?)
    }
}

impl Deref for Acting {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Acting {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Who asks, from what the request carries.
pub(crate) async fn identify(api: &Api, parts: &Parts) -> Result<Caller> {
    let mut caller = if parts.extensions.get::<Local>().is_some() {
        Caller {
            tenant: tenant::PROVIDER,
            home: tenant::PROVIDER,
            scope: tenant::PROVIDER.into(),
            name: "local administrator".to_owned(),
            role: Role::Administrator,
            by: By::Local,
            why: String::new(),
        }
    } else if let Some(header) = parts.headers.get(header::AUTHORIZATION) {
        by_token(api, header.to_str().unwrap_or_default()).await?
    } else {
        by_session(api, parts).await?
    };
    if let Some(why) = parts.headers.get(&REASON) {
        caller.why = String::from_utf8_lossy(why.as_bytes()).chars().take(LONGEST_REASON).collect();
    }
    if let Some(name) = parts.headers.get(&TENANT) {
        // Names are UTF-8, also here.
        act_for(api, &mut caller, std::str::from_utf8(name.as_bytes()).unwrap_or_default()).await?;
    }
    Ok(caller)
}

async fn by_token(api: &Api, header: &str) -> Result<Caller> {
    let (scheme, secret) = header.split_once(' ').ok_or_else(ApiError::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::unauthorized());
    }
    // Looked up by digest: how long that takes says nothing about the secret.
    let digest = token::digest_of(secret.trim());
    let bearer = token::bearer(&api.pool, &digest).await?.ok_or_else(ApiError::unauthorized)?;
    token::touch(&api.pool, bearer.token_id).await?;
    let (home, role) = (TenantId(bearer.tenant_id), Role::from_column(&bearer.role));
    Ok(Caller {
        tenant: home,
        home,
        scope: scope_of(home, role, bearer.group, bearer.mailbox),
        name: format!("token {}", bearer.name),
        role,
        by: By::Token { digest },
        why: String::new(),
    })
}

async fn by_session(api: &Api, parts: &Parts) -> Result<Caller> {
    let secret = cookie(parts, cookie_name(api.is_https)).ok_or_else(ApiError::unauthorized)?;
    let digest = Digest::of(secret.as_bytes());
    let live = session::live(&api.pool, &digest).await?.ok_or_else(ApiError::unauthorized)?;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        check_origin(parts)?;
        let shown = parts.headers.get(&CSRF).map(|value| value.as_bytes()).unwrap_or_default();
        // Compared by digest: how long that takes says nothing about the secret.
        if Digest::of(shown) != Digest::of(csrf_of(secret).as_bytes()) {
            return Err(ApiError::new(
                Kind::Forbidden,
                "the request does not show that it comes from Understudy's own page",
                "send the header `Understudy-Csrf` with the `csrf` that `GET /api/v1/me` answers",
            ));
        }
    }
    session::touch(&api.pool, live.session_id).await?;
    Ok(Caller::of_session(live, digest))
}

/// A user has one mailbox, or sees none.
fn scope_of(tenant: TenantId, role: Role, group: Option<String>, mailbox: Option<String>) -> Scope {
    let mailbox = if role == Role::User { Some(mailbox.unwrap_or_default()) } else { mailbox };
    Scope { tenant, group, mailbox }
}

/// Lets the provider's people act for the tenant of this name.
async fn act_for(api: &Api, caller: &mut Caller, name: &str) -> Result<()> {
    let found = if caller.home == tenant::PROVIDER && caller.scope.is_whole() && caller.role != Role::User {
        tenant::find(&api.pool, name).await?
    } else {
        // Naming one's own is harmless; about others nothing is said.
        tenant::find(&api.pool, name).await?.filter(|found| *found == caller.home)
    };
    let remedy = "leave the header `Understudy-Tenant` out, or name a tenant that `GET /api/v1/tenants` lists";
    let found = found.ok_or_else(|| ApiError::not_found("tenant", name, None, remedy))?;
    caller.tenant = found;
    caller.scope.tenant = found;
    Ok(())
}

/// Refuses what a browser says comes from another site.
pub(crate) fn check_origin(parts: &Parts) -> Result<()> {
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let is_foreign_site = site.is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let authority = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, rest)| rest));
    let is_foreign_origin = authority.is_some_and(|authority| Some(authority) != text(header::HOST));
    if !is_foreign_site && !is_foreign_origin {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::Forbidden,
        "the request comes from a page of another site",
        "open Understudy's own page; a proxy in front of it must pass the header `Host` on",
    ))
}

/// What the page shows to prove itself: made from the session's secret, and not the other way round.
pub(crate) fn csrf_of(secret: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(blake3::derive_key("understudy csrf 1", secret.as_bytes()))
}

/// The name of the session's cookie. Browsers give `__Host-` to nobody but this host, over TLS.
pub(crate) fn cookie_name(is_https: bool) -> &'static str {
    if is_https { "__Host-understudy" } else { "understudy" }
}

pub(crate) fn cookie<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    let headers = parts.headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = headers.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}
