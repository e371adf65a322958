//! `/settings`: what the configuration of this installation comes to, and where each value was said. Secrets never stand in it.
//!
//! Not here: what is changed over REST, which has routes of its own (`notifications`, `policies`, `link/limits`, `prices`).

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{config::Setting, error::Result, state::Api};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(settings))
}

/// The configuration in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Settings {
    /// By key.
    items: Vec<Setting>,
}

/// The configuration this process began with: the file, what the environment says instead, and what is built in. It is changed there, and
/// takes effect at the next start.
#[utoipa::path(get, path = "/api/v1/settings", tag = "settings", responses((status = 200, body = Settings)))]
async fn settings(State(api): State<Api>) -> Result<Json<Settings>> {
    Ok(Json(Settings { items: api.settings.to_vec() }))
}
