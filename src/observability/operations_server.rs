//! The operations address: `/metrics` and the probes.

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

async fn metrics(State(metrics): State<Metrics>) -> Response<Body> {
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
}

/// Serves the operations address until stopped.
pub async fn run(
    listener: TcpListener,
    shown: Metrics,
    health: HealthRegistry,
    stop: CancellationToken,
) {
    let app = Router::new()
        .route("/metrics", get(metrics).with_state(shown))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz).with_state(health));
    serve(listener, app, Duration::from_secs(10), stop).await;
}
