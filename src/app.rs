//! The composition root: builds the receiver, worker, delivery and maintenance from the
//! configuration, starts them in order and stops them in order.

mod components;
mod destinations;
mod enrichment;
mod headers;
mod sources;
mod wiring;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    broker::{self, Publisher},
    config::Config,
    delivery,
    maintenance::{self, import_completion::ImportCompletion},
    observability::{
        health::{HealthRegistry, HealthReporter},
        metrics::Metrics,
        operations_server,
    },
    store::Store,
    worker,
};
pub use components::Components;
pub use wiring::{Shared, topology};

/// How long work in progress may take once the process stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Receives webhooks over HTTP.
    pub receiver: bool,
    /// Applies them to the database and delivers documents.
    pub worker: bool,
}

impl Roles {
    /// All roles in one process.
    pub const ALL: Self = Self { receiver: true, worker: true };
}

/// A running process.
pub struct App {
    /// The address that receives webhooks, with the receiver role.
    pub receiver_address: Option<SocketAddr>,
    /// The address of `/metrics`, `/livez` and `/readyz`.
    pub operations_address: SocketAddr,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The health of the roles.
    pub health: HealthRegistry,
    stop: CancellationToken,
    stop_publisher: CancellationToken,
    tasks: JoinSet<()>,
    store: Store,
    status_store: Store,
}

impl App {
    /// Starts the roles. A server that is unavailable is not an error: after a reboot, all servers
    /// of a machine start at once.
    ///
    /// # Errors
    /// An invalid setting, or an address that cannot be bound.
    pub async fn start(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        let components = Components::build(config)?;
        broker::check_url(&config.broker.url)?;
        let metrics = Metrics::new().context("metrics cannot be registered")?;
        let topology = Arc::new(topology(config));
        let store = Store::new(&config.database).context("database.url")?;
        let status_store = wiring::status_store(&config.database)?;
        let operations = listen(config.operations.listen, "operations.listen").await?;
        let receiver = if roles.receiver {
            Some(listen(config.receiver.listen, "receiver.listen").await?)
        } else {
            None
        };

        let stop = CancellationToken::new();
        // Stops last: the worker publishes retries until its last batch is acknowledged.
        let stop_publisher = CancellationToken::new();
        let publisher = Publisher::start(
            &config.broker,
            Arc::clone(&topology),
            metrics.clone(),
            stop_publisher.clone(),
        );
        let worker_health = worker::initial_health();
        let mut app = Self {
            receiver_address: receiver.as_ref().map(TcpListener::local_addr).transpose()?,
            operations_address: operations.local_addr()?,
            metrics: metrics.clone(),
            health: health(roles, &publisher, &worker_health, &store),
            stop,
            stop_publisher,
            tasks: JoinSet::new(),
            store: store.clone(),
            status_store: status_store.clone(),
        };
        let shared = Shared { publisher: publisher.clone(), topology, metrics: metrics.clone() };
        if let Some(listener) = receiver {
            let receiver = shared.receiver(config, &components, status_store);
            // Load balancers check the receiver's address. The receiver does not need the
            // database.
            let receiver_role = Roles { receiver: true, worker: false };
            let health = health(receiver_role, &publisher, &worker_health, &store).hide_problems();
            app.tasks.spawn(receiver.run(listener, health, app.stop.clone()));
        }
        if roles.worker {
            app.start_worker(config, &components, &shared, worker_health)?;
        }
        let health = app.health.clone();
        app.tasks.spawn(operations_server::run(operations, metrics, health, app.stop.clone()));
        info!(
            receiver = app.receiver_address.map(|address| address.to_string()),
            operations = %app.operations_address,
            "serving"
        );
        Ok(app)
    }

    fn start_worker(
        &mut self,
        config: &Config,
        components: &Components,
        shared: &Shared,
        health: HealthReporter,
    ) -> anyhow::Result<()> {
        let (store, metrics, stop) = (&self.store, &self.metrics, &self.stop);
        let url = &config.broker.url;
        let retention = maintenance::retention::run(
            wiring::maintenance_store(&config.database)?,
            components.retention.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let context = shared.worker_context(config, components, store.clone())?;
        let delivery = delivery::run(
            shared.delivery_context(config, &context),
            Arc::clone(&components.destinations),
            stop.clone(),
        );
        let worker = worker::run(context, url.clone(), health, stop.clone());
        let duplicate_warning_percent = config.worker.duplicate_warning_percent;
        let import_completion = ImportCompletion {
            store: store.clone(),
            metrics: metrics.clone(),
            sources: components.sources.keys().cloned().collect(),
            duplicate_warning_percent,
        };
        let import_completion =
            maintenance::import_completion::run(import_completion, stop.clone());
        let duplicate_alert = maintenance::duplicate_alert::run(
            metrics.clone(),
            duplicate_warning_percent,
            stop.clone(),
        );
        let sampler = maintenance::metrics_sampler::run(
            url.clone(),
            Arc::clone(&shared.topology),
            store.clone(),
            metrics.clone(),
            stop.clone(),
        );
        self.tasks.spawn(retention);
        self.tasks.spawn(import_completion);
        self.tasks.spawn(duplicate_alert);
        self.tasks.spawn(delivery);
        self.tasks.spawn(worker);
        self.tasks.spawn(sampler);
        Ok(())
    }

    /// Waits until every role is ready.
    pub async fn wait_until_ready(&self) {
        while !self.health.is_ready() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops: requests and batches in progress finish, no new ones start.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, finished).await.is_err() {
            warn!("some work did not finish in time; unacknowledged messages will be redelivered");
        }
        self.tasks.abort_all();
        self.stop_publisher.cancel();
        self.store.close().await;
        self.status_store.close().await;
        info!("stopped");
    }
}

/// The receiver needs the broker; the worker needs the broker and the database.
fn health(
    roles: Roles,
    publisher: &Publisher,
    worker: &HealthReporter,
    store: &Store,
) -> HealthRegistry {
    let mut health = HealthRegistry::default();
    if roles.receiver {
        let publisher = publisher.clone();
        health = health.with_part("receiver", move || publisher.degraded_reason());
    }
    if roles.worker {
        let (worker, store) = (worker.clone(), store.clone());
        // The worker reports a database outage only after it has retried a batch for a while.
        let ping = move || {
            let store = store.clone();
            async move { store.ping().await.err().map(|error| error.to_string()) }.boxed()
        };
        health = health.with_part("worker", move || worker.problem()).with_check("database", ping);
    }
    health
}

async fn listen(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: cannot listen on {address}"))
}

/// Waits for Ctrl-C (SIGINT) or SIGTERM.
///
/// # Errors
/// No signal handler can be installed.
pub async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.context("cannot wait for signals"),
        _ = terminate.recv() => Ok(()),
    }
}
