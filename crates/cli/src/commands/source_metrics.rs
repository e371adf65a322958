//! `/metrics` of a source gateway that runs alone.
//!
//! In: GET. Out: Prometheus text: what the process counted, and what its journal says now.
//! Keeps true: nothing is served but these numbers, which name nobody; so no token is asked for.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    pool: PgPool,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new().route("/metrics", get(show)).with_state((pool, metrics));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

async fn show(State((pool, metrics)): State<(PgPool, PrometheusHandle)>) -> Response {
    if let Err(error) = understudy_gateway_source::update_gauges(&pool).await {
        tracing::warn!(error = format!("{error:#}"), "Could not read the journal for its metrics");
        return (StatusCode::SERVICE_UNAVAILABLE, "the journal cannot be read; the log says why\n").into_response();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}
