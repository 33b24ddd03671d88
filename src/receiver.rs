//! The HTTP receiver: reads a body whole, has it verified, publishes its
//! events, answers. It knows HTTP, signatures and the broker, and never waits
//! for the database.

mod answer;
mod body;
mod hooks;
mod record;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    middleware::map_response,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    adapter::Adapter,
    broker::{Publisher, Topology},
    config,
    domain::SourceName,
    health::{Health, livez, readyz},
    metrics::Metrics,
    server::serve,
};

/// What the receiver's handlers share.
#[derive(Clone)]
pub struct Receiver {
    settings: config::Receiver,
    sources: Arc<BTreeMap<SourceName, Adapter>>,
    topology: Arc<Topology>,
    publisher: Publisher,
    metrics: Metrics,
    /// A place for each request that may be under way.
    places: Arc<Semaphore>,
    loud: Arc<OncePerSecond>,
    sampling: Arc<record::Sampling>,
}

/// Says yes once in so many seconds.
#[derive(Debug, Default)]
struct OncePer<const SECONDS: u64>(AtomicU64);

type OncePerSecond = OncePer<1>;
type OncePerMinute = OncePer<60>;

impl<const SECONDS: u64> OncePer<SECONDS> {
    fn speak(&self) -> bool {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        // The first turn is 1, so that the very first call is told.
        let turn = START.elapsed().as_secs() / SECONDS + 1;
        self.0.swap(turn, Ordering::Relaxed) != turn
    }
}

impl Receiver {
    /// A receiver for these sources.
    pub fn new(
        settings: config::Receiver,
        sources: Arc<BTreeMap<SourceName, Adapter>>,
        topology: Arc<Topology>,
        publisher: Publisher,
        metrics: Metrics,
    ) -> Self {
        let places = Arc::new(Semaphore::new(settings.max_concurrent_requests));
        let sampling = Arc::new(record::Sampling::new(sources.keys()));
        let loud = Arc::default();
        let receiver =
            Self { settings, sources, topology, publisher, metrics, places, loud, sampling };
        receiver.show_series();
        receiver
    }

    /// Serves until stopped, then lets the requests under way finish.
    pub async fn run(self, listener: TcpListener, health: Health, stop: CancellationToken) {
        let header_timeout = std::time::Duration::from_millis(self.settings.header_timeout_ms);
        let app = Router::new()
            .route(
                "/hooks/{source}",
                post(hooks::receive).options(hooks::handshake).fallback(hooks::wrong_method),
            )
            .with_state(self)
            .route("/livez", get(livez))
            .route("/readyz", get(readyz).with_state(health))
            .fallback(answer::no_such_place)
            .method_not_allowed_fallback(answer::method_not_allowed)
            .layer(map_response(answer::name_receipt));
        serve(listener, app, header_timeout, stop).await;
    }
}
