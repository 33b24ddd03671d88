//! The HTTP receiver: reads a request, has its source verify it, publishes its events, answers.
//!
//! It depends on HTTP, signatures and the broker, never on the database. The only exception are
//! the questions about imports, which read their status.

mod body;
mod imports;
mod rate_gate;
mod rejected_requests;
mod response;
mod webhooks;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    middleware::map_response,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

pub use self::imports::ImportStatusReader;
use self::{rate_gate::RateGate, rejected_requests::CallLogSampler};
use crate::{
    broker::{Publisher, Topology},
    config::ReceiverConfig,
    domain::SourceName,
    net::http_server::serve,
    observability::{
        health::{HealthRegistry, livez, readyz},
        metrics::Metrics,
    },
    sources::Source,
};

/// How long imports whose client has disconnected may take once no request is in progress.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// The state of the HTTP handlers.
#[derive(Clone)]
pub struct Receiver {
    settings: ReceiverConfig,
    sources: Arc<BTreeMap<SourceName, Source>>,
    topology: Arc<Topology>,
    publisher: Publisher,
    metrics: Metrics,
    import_status: ImportStatusReader,
    request_permits: Arc<Semaphore>,
    import_permits: Arc<Semaphore>,
    /// Cancelled when the process stops.
    stop: CancellationToken,
    log_limiter: Arc<RateGate>,
    sampler: Arc<CallLogSampler>,
}

impl Receiver {
    /// A receiver for these sources.
    pub fn new(
        settings: ReceiverConfig,
        sources: Arc<BTreeMap<SourceName, Source>>,
        topology: Arc<Topology>,
        publisher: Publisher,
        import_status: ImportStatusReader,
        metrics: Metrics,
    ) -> Self {
        let receiver = Self {
            request_permits: Arc::new(Semaphore::new(settings.max_concurrent_requests)),
            import_permits: Arc::new(Semaphore::new(imports::MAX_CONCURRENT_IMPORTS)),
            log_limiter: Arc::new(RateGate::new(Duration::from_secs(1))),
            sampler: Arc::new(CallLogSampler::new(sources.keys())),
            stop: CancellationToken::new(),
            settings,
            sources,
            topology,
            publisher,
            import_status,
            metrics,
        };
        receiver.register_series();
        receiver
    }

    /// Serves until stopped, then lets requests in progress finish.
    pub async fn run(
        mut self,
        listener: TcpListener,
        health: HealthRegistry,
        stop: CancellationToken,
    ) {
        self.stop = stop.clone();
        let import_permits = Arc::clone(&self.import_permits);
        let header_timeout = Duration::from_millis(self.settings.header_timeout_ms);
        let router = Router::new()
            .route(
                "/hooks/{source}",
                post(webhooks::receive_webhook)
                    .options(webhooks::handshake)
                    .fallback(webhooks::method_not_allowed),
            )
            .route(
                "/imports/{name}",
                post(imports::receive_import)
                    .get(imports::get_import)
                    .fallback(imports::method_not_allowed),
            )
            .route(
                "/imports/{name}/items",
                get(imports::get_import_items).fallback(imports::method_not_allowed),
            )
            .with_state(self)
            .route("/livez", get(livez))
            .route("/readyz", get(readyz).with_state(health))
            .fallback(response::not_found)
            .method_not_allowed_fallback(response::probe_method_not_allowed)
            .layer(map_response(response::set_receipt_header));
        serve(listener, router, header_timeout, stop).await;
        // Imports whose client has disconnected still record how they ended.
        let all = u32::try_from(imports::MAX_CONCURRENT_IMPORTS).unwrap_or(u32::MAX);
        drop(timeout(SHUTDOWN_TIMEOUT, import_permits.acquire_many(all)).await);
    }
}
