//! The one route for a site that has a token and no certificate yet; nothing else answers on such a connection.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;
use understudy_pairing::{JoinAnswer, JoinRequest};

use crate::pairing::{JoinError, Pairing};

/// The longest request, in bytes.
const BODY: usize = 16 << 10;

#[derive(Clone)]
struct Joining {
    pairing: Arc<Pairing>,
    from: SocketAddr,
}

/// The routes of one connection.
pub(crate) fn router(pairing: Arc<Pairing>, from: SocketAddr) -> Router {
    Router::new()
        .route("/link/v1/join", post(join))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Joining { pairing, from })
}

async fn join(State(joining): State<Joining>, Json(asked): Json<JoinRequest>) -> Result<Json<JoinAnswer>, JoinError> {
    joining.pairing.join(asked, joining.from).await.map(Json)
}

impl IntoResponse for JoinError {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => {
                let said = json!({ "reason": refusal.reason, "remedy": refusal.remedy });
                (refusal.status, Json(said)).into_response()
            }
            Self::Ours(error) => {
                tracing::error!(error = format!("{error:#}"), "Could not certify a site");
                let said = json!({
                    "reason": "the recovery gateway could not do it just now",
                    "remedy": "try again with the same token; its log says why",
                });
                (StatusCode::SERVICE_UNAVAILABLE, Json(said)).into_response()
            }
        }
    }
}
