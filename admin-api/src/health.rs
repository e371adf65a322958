//! `/healthz` and `/readyz`: the only routes with data that need no token, and they give nothing away.

use axum::{Json, extract::State};
use serde::Serialize;
use understudy_database::status;
use utoipa::ToSchema;

use crate::{error::Result, state::Api};

/// One word.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The database answers and has its schema.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503, body = crate::error::Problem)))]
pub(crate) async fn readyz(State(api): State<Api>) -> Result<Json<Health>> {
    status::ready(&api.pool).await?;
    Ok(Json(Health { status: "ready" }))
}
