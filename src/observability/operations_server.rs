//! The operations address: `/metrics`, `/livez` and `/readyz`.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    net::http_server::serve,
    observability::{
        health::{HealthRegistry, livez, readyz, respond},
        metrics::Metrics,
    },
};

/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the operations address until stopped.
pub async fn run(
    listener: TcpListener,
    metrics: Metrics,
    health: HealthRegistry,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(render_metrics).with_state(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz).with_state(health));
    serve(listener, router, HEADER_TIMEOUT, stop).await;
}

async fn render_metrics(State(metrics): State<Metrics>) -> Response<Body> {
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
}
