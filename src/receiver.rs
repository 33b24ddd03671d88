//! The HTTP receiver: reads a body whole, has it verified, publishes its
//! events, answers. It knows HTTP, signatures and the broker, and never waits
//! for the database; only whoever asks what became of a file is answered from
//! there.

mod body;
mod imports;
mod rejected_requests;
mod response;
mod webhooks;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    middleware::map_response,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Publisher, Topology},
    config,
    domain::SourceName,
    net::http_server::serve,
    observability::{
        health::{Health, livez, readyz},
        metrics::Metrics,
    },
    sources::Source,
    store::Store,
};

/// Questions to the database that may be under way at once.
const MAX_CONCURRENT_QUERIES: usize = 8;

/// How long imports without a client may take once no request is under way.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// What the receiver's handlers share.
#[derive(Clone)]
pub struct Receiver {
    settings: config::ReceiverConfig,
    sources: Arc<BTreeMap<SourceName, Source>>,
    topology: Arc<Topology>,
    publisher: Publisher,
    metrics: Metrics,
    /// For questions only: what became of an import.
    store: Store,
    /// A place for each request that may be under way.
    request_permits: Arc<Semaphore>,
    /// A place for each file that may come in.
    import_permits: Arc<Semaphore>,
    /// A place for each question to the database.
    query_permits: Arc<Semaphore>,
    /// When this process stops.
    stop: CancellationToken,
    log_limiter: Arc<OncePerSecond>,
    sampler: Arc<rejected_requests::CallLogSampler>,
}

/// Says yes once in so many seconds.
#[derive(Debug, Default)]
struct RateGate<const SECONDS: u64>(AtomicU64);

type OncePerSecond = RateGate<1>;
type OncePerMinute = RateGate<60>;

impl<const SECONDS: u64> RateGate<SECONDS> {
    fn allow(&self) -> bool {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        // The first turn is 1, so that the very first call is told.
        let turn = START.elapsed().as_secs() / SECONDS + 1;
        self.0.swap(turn, Ordering::Relaxed) != turn
    }
}

impl Receiver {
    /// A receiver for these sources.
    pub fn new(
        settings: config::ReceiverConfig,
        sources: Arc<BTreeMap<SourceName, Source>>,
        topology: Arc<Topology>,
        publisher: Publisher,
        store: Store,
        metrics: Metrics,
    ) -> Self {
        let receiver = Self {
            request_permits: Arc::new(Semaphore::new(settings.max_concurrent_requests)),
            import_permits: Arc::new(Semaphore::new(imports::MAX_CONCURRENT_IMPORTS)),
            query_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_QUERIES)),
            log_limiter: Arc::default(),
            sampler: Arc::new(rejected_requests::CallLogSampler::new(sources.keys())),
            stop: CancellationToken::new(),
            settings,
            sources,
            topology,
            publisher,
            store,
            metrics,
        };
        receiver.register_series();
        receiver
    }

    /// Serves until stopped, then lets the requests under way finish.
    pub async fn run(mut self, listener: TcpListener, health: Health, stop: CancellationToken) {
        self.stop = stop.clone();
        let files = Arc::clone(&self.import_permits);
        let header_timeout = Duration::from_millis(self.settings.header_timeout_ms);
        let app = Router::new()
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
        serve(listener, app, header_timeout, stop).await;
        // A file whose client is gone is told of all the same.
        let all = u32::try_from(imports::MAX_CONCURRENT_IMPORTS).unwrap_or(u32::MAX);
        drop(timeout(SHUTDOWN_TIMEOUT, files.acquire_many(all)).await);
    }
}
