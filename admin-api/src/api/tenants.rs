//! `/tenants`: the provider's customers, and which of the provider's servers each may use.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use understudy_database::{server, tenant};
use understudy_protocol::TenantId;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::mailboxes::label_problem,
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    nearest::nearest,
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(change))
}

/// A customer, or the provider itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tenant {
    #[schema(example = "example.org")]
    name: String,
    /// Protected ones.
    mailboxes: i64,
    /// The provider's servers it may use.
    servers: Vec<String>,
    is_provider: bool,
    created_at: DateTime<Utc>,
}

impl From<tenant::Tenant> for Tenant {
    fn from(tenant: tenant::Tenant) -> Self {
        Self {
            is_provider: tenant.tenant_id == tenant::PROVIDER.0,
            name: tenant.name,
            mailboxes: tenant.mailboxes,
            servers: tenant.servers,
            created_at: tenant.created_at,
        }
    }
}

/// A customer to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "customer.example", "servers": ["dr-1"]}))]
pub(crate) struct NewTenant {
    #[schema(example = "example.org")]
    name: String,
    /// The provider's servers it may use.
    #[serde(default)]
    servers: Vec<String>,
}

/// What a customer may use from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"servers": ["dr-1", "mail-a"]}))]
pub(crate) struct TenantChange {
    /// The provider's servers it may use, and no others.
    servers: Vec<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    limit: Option<i64>,
    after: Option<String>,
}

/// All tenants, by name.
#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants", params(Paging),
    responses((status = 200, body = Page<Tenant>)))]
async fn list(State(api): State<Api>, Params(paging): Params<Paging>) -> Result<Json<Page<Tenant>>> {
    let limit = cursor::limit(paging.limit)?;
    let after: Option<String> = cursor::decode(paging.after.as_deref())?;
    let tenants = tenant::list(&api.pool, after.as_deref(), limit + 1).await?;
    Ok(Json(Page::of(tenants, limit, |tenant| tenant.name.clone(), Tenant::from)))
}

/// Makes a customer.
#[utoipa::path(post, path = "/api/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, body = Tenant), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn add(State(api): State<Api>, caller: Caller, Body(new): Body<NewTenant>) -> Result<Response> {
    if let Some(problem) = label_problem("/name", &new.name) {
        return Err(ApiError::invalid(vec![problem]));
    }
    let servers = servers(&api, &new.servers).await?;
    let mut transaction = caller.begin(&api, "").await?;
    let id = tenant::create(&mut *transaction, &new.name).await.map_err(|error| match error.constraint() {
        Some("tenant_name_unique") => ApiError::new(
            Kind::Conflict,
            format!("there is a tenant `{}`", new.name),
            "choose another name, or change that one with PATCH",
        ),
        _ => error.into(),
    })?;
    tenant::share(&mut transaction, id, &servers).await?;
    transaction.commit().await?;
    let location = [(header::LOCATION, "/api/v1/tenants")];
    Ok((StatusCode::CREATED, location, Json(shown(&api, &new.name).await?)).into_response())
}

/// Changes which of the provider's servers a customer may use.
#[utoipa::path(patch, path = "/api/v1/tenants/{name}", tag = "tenants", params(("name" = String, Path)),
    request_body = TenantChange,
    responses((status = 200, body = Tenant), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn change(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(wanted): Body<TenantChange>,
) -> Result<Json<Tenant>> {
    let id = find(&api, &name).await?;
    if id == tenant::PROVIDER {
        return Err(ApiError::new(
            Kind::Conflict,
            "this is the provider: its servers are its own",
            "name a customer; `GET /api/v1/tenants` lists them",
        ));
    }
    let servers = servers(&api, &wanted.servers).await?;
    let mut transaction = caller.begin(&api, "").await?;
    tenant::share(&mut transaction, id, &servers).await?;
    transaction.commit().await?;
    Ok(Json(shown(&api, &name).await?))
}

async fn find(api: &Api, name: &str) -> Result<TenantId> {
    let found = if name.contains('\0') { None } else { tenant::find(&api.pool, name).await? };
    found.ok_or_else(|| ApiError::not_found("tenant", name, None, "`GET /api/v1/tenants` lists them"))
}

async fn shown(api: &Api, name: &str) -> Result<Tenant> {
    let found = tenant::get(&api.pool, name).await?.map(Tenant::from);
    found.ok_or_else(|| ApiError::not_found("tenant", name, None, "`GET /api/v1/tenants` lists them"))
}

/// The provider's servers of these names.
async fn servers(api: &Api, names: &[String]) -> Result<Vec<i64>> {
    let known = server::own_names(&api.pool, tenant::PROVIDER).await?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (index, name) in names.iter().enumerate() {
        match known.iter().find(|(known, ..)| known == name) {
            Some((_, id, _)) => found.push(*id),
            None => errors.push(ProblemItem {
                nearest: nearest(name, known.iter().map(|(known, ..)| known.as_str())),
                ..ProblemItem::at(format!("/servers/{index}"), format!("the provider has no server `{name}`"))
            }),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(ApiError::invalid(errors)) }
}
