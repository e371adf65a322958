//! `/metrics` of a gateway that runs alone.
//!
//! In: GET. Out: Prometheus text: what the process counted, and, of a source gateway, what its journal says now.
//! Keeps true: nothing is served but these numbers, which name nobody; so no token is asked for.
//! Not here: what the recovery site's database says; the admin API shows that (`admin-api/src/metrics.rs`).

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

/// Serves until `stop`; `journal` is the source gateway's.
pub(super) async fn serve(
    listener: TcpListener,
    journal: Option<PgPool>,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new().route("/metrics", get(show)).with_state((journal, metrics));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

async fn show(State((journal, metrics)): State<(Option<PgPool>, PrometheusHandle)>) -> Response {
    if let Some(journal) = journal
        && let Err(error) = understudy_gateway_source::update_gauges(&journal).await
    {
        tracing::warn!(error = format!("{error:#}"), "Could not read the journal for its metrics");
        return (StatusCode::SERVICE_UNAVAILABLE, "the journal cannot be read; the log says why\n").into_response();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}
