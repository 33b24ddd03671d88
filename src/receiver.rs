//! The HTTP receiver: reads a body whole, has it verified, publishes its
//! events, answers. It knows HTTP, signatures and the broker, and never waits
//! for the database; only whoever asks what became of a file is answered from
//! there.

mod answer;
mod body;
mod hooks;
mod imports;
mod record;

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
    adapter::Adapter,
    broker::{Publisher, Topology},
    config,
    domain::SourceName,
    health::{Health, livez, readyz},
    metrics::Metrics,
    server::serve,
    store::Store,
};

/// Questions to the database that may be under way at once.
const QUESTIONS: usize = 8;

/// How long imports without a client may take once no request is under way.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the receiver's handlers share.
#[derive(Clone)]
pub struct Receiver {
    settings: config::Receiver,
    sources: Arc<BTreeMap<SourceName, Adapter>>,
    topology: Arc<Topology>,
    publisher: Publisher,
    metrics: Metrics,
    /// For questions only: what became of an import.
    store: Store,
    /// A place for each request that may be under way.
    places: Arc<Semaphore>,
    /// A place for each file that may come in.
    files: Arc<Semaphore>,
    /// A place for each question to the database.
    questions: Arc<Semaphore>,
    /// When this process stops.
    stop: CancellationToken,
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
        store: Store,
        metrics: Metrics,
    ) -> Self {
        let receiver = Self {
            places: Arc::new(Semaphore::new(settings.max_concurrent_requests)),
            files: Arc::new(Semaphore::new(imports::FILES)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            loud: Arc::default(),
            sampling: Arc::new(record::Sampling::new(sources.keys())),
            stop: CancellationToken::new(),
            settings,
            sources,
            topology,
            publisher,
            store,
            metrics,
        };
        receiver.show_series();
        receiver
    }

    /// Serves until stopped, then lets the requests under way finish.
    pub async fn run(mut self, listener: TcpListener, health: Health, stop: CancellationToken) {
        self.stop = stop.clone();
        let files = Arc::clone(&self.files);
        let header_timeout = Duration::from_millis(self.settings.header_timeout_ms);
        let app = Router::new()
            .route(
                "/hooks/{source}",
                post(hooks::receive).options(hooks::handshake).fallback(hooks::wrong_method),
            )
            .route(
                "/imports/{name}",
                post(imports::take).get(imports::show).fallback(imports::wrong_method),
            )
            .route("/imports/{name}/items", get(imports::items).fallback(imports::wrong_method))
            .with_state(self)
            .route("/livez", get(livez))
            .route("/readyz", get(readyz).with_state(health))
            .fallback(answer::no_such_place)
            .method_not_allowed_fallback(answer::method_not_allowed)
            .layer(map_response(answer::name_receipt));
        serve(listener, app, header_timeout, stop).await;
        // A file whose client is gone is told of all the same.
        let all = u32::try_from(imports::FILES).unwrap_or(u32::MAX);
        drop(timeout(FAREWELL, files.acquire_many(all)).await);
    }
}
