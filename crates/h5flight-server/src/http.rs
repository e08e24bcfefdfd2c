//! The HTTP port: health for orchestrators, metrics for Prometheus. No data, no authentication, loopback by default.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::memory::MEMORY_UNIT_BYTES;
use crate::metrics;
use crate::service::Service;

/// How long the catalogue may take before the server is not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Page {
    service: Arc<Service>,
    metrics: PrometheusHandle,
    draining: CancellationToken,
}

/// Serves until `shutdown`. From `draining` on the server is not ready.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    metrics: PrometheusHandle,
    draining: CancellationToken,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let page = Page { service, metrics, draining };
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(page);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn ready(State(page): State<Page>) -> (StatusCode, &'static str) {
    if page.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    match tokio::time::timeout(READY_TIMEOUT, page.service.catalog.ping()).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the catalogue does not answer\n"),
    }
}

async fn render(State(page): State<Page>) -> impl IntoResponse {
    let service = &page.service;
    metrics::cache_size("memory", service.memory.size().0);
    let free = service.read_memory.available_permits() as u64;
    metrics::read_memory(u64::from(service.read_memory_units).saturating_sub(free) * MEMORY_UNIT_BYTES);
    page.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.metrics.render())
}
