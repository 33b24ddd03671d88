//! The running service: which roles this process serves, started in order
//! and stopped in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    broker,
    broker::{Publisher, Topology},
    config,
    config::Config,
    delivery,
    maintenance::{self, import_completion::ImportCompletion},
    observability::{health::Health, metrics::Metrics, operations_server},
    receiver::Receiver,
    store::Store,
    worker,
    worker::{HealthRegistry, InFlightKeys, SecretUsage, WorkerContext},
};

/// How long everything under way may take once the service stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// How long a question to the database may take that somebody waits for.
const RESPONSE_TIMEOUT_MS: u64 = 5000;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Takes webhooks in over HTTP.
    pub receiver: bool,
    /// Applies them.
    pub worker: bool,
}

impl Roles {
    /// Everything in one process.
    pub const ALL: Self = Self { receiver: true, worker: true };
}

/// A service that runs until it is stopped.
pub struct App {
    /// Where webhooks are taken, if this process takes them.
    pub receiver_address: Option<SocketAddr>,
    /// Where `/metrics` is.
    pub operations_address: SocketAddr,
    /// What is measured.
    pub metrics: Metrics,
    /// Whether the roles can do their work.
    pub health: Health,
    stop: CancellationToken,
    stop_publishing: CancellationToken,
    tasks: JoinSet<()>,
    store: Store,
    status_store: Store,
}

/// The exchanges and queues of a configuration.
pub fn topology(config: &Config) -> Topology {
    Topology::new(
        &config.broker.prefix,
        config.broker.delivery_limit,
        config.retry.schedule().tiers(),
        config.sources.keys().cloned(),
    )
}

impl App {
    /// Starts the roles. Servers that are away are waited for, not failed on:
    /// a machine that boots starts everything at once.
    ///
    /// # Errors
    /// An address that cannot be listened on; a database URL that is none.
    pub async fn start(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        broker::check_url(&config.broker.url)?;
        let metrics = Metrics::new().context("metrics cannot be made")?;
        let topology = Arc::new(topology(config));
        let store = Store::new(&config.database).context("database.url")?;
        let operations = listen(config.operations.listen, "operations.listen").await?;
        let receiver = if roles.receiver {
            Some(listen(config.receiver.listen, "receiver.listen").await?)
        } else {
            None
        };

        let stop = CancellationToken::new();
        // The worker publishes retries until its last batch is settled.
        let stop_publishing = CancellationToken::new();
        let publisher = Publisher::start(
            &config.broker,
            Arc::clone(&topology),
            metrics.clone(),
            stop_publishing.clone(),
        );
        let pulse = HealthRegistry::default();
        let health = Health {
            publisher: roles.receiver.then(|| publisher.clone()),
            worker: roles.worker.then(|| pulse.clone()),
            database: roles.worker.then(|| store.clone()),
            public: false,
        };
        let mut service = Self {
            receiver_address: receiver.as_ref().map(TcpListener::local_addr).transpose()?,
            operations_address: operations.local_addr()?,
            metrics: metrics.clone(),
            health: health.clone(),
            stop,
            stop_publishing,
            tasks: JoinSet::new(),
            store: store.clone(),
            status_store: status_store(&config.database)?,
        };
        if let Some(listener) = receiver {
            let receiver = Receiver::new(
                config.receiver.clone(),
                Arc::clone(&config.sources),
                Arc::clone(&topology),
                publisher.clone(),
                service.status_store.clone(),
                metrics.clone(),
            );
            // A load balancer asks the receiver's own address: without the
            // database it still takes everything.
            let alone = Health { worker: None, database: None, public: true, ..health.clone() };
            service.tasks.spawn(receiver.run(listener, alone, service.stop.clone()));
        }
        if roles.worker {
            service.start_worker(config, topology, publisher, pulse)?;
        }
        service.tasks.spawn(operations_server::run(
            operations,
            metrics,
            health,
            service.stop.clone(),
        ));
        info!(
            receiver = service.receiver_address.map(|address| address.to_string()),
            operations = %service.operations_address,
            "serving"
        );
        Ok(service)
    }

    /// Starts what a worker is made of.
    fn start_worker(
        &mut self,
        config: &Config,
        topology: Arc<Topology>,
        publisher: Publisher,
        pulse: HealthRegistry,
    ) -> anyhow::Result<()> {
        let (store, metrics, stop) = (&self.store, &self.metrics, &self.stop);
        let housekeeping = maintenance::retention::run(
            maintenance_store(&config.database)?,
            config.retention.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let outbox = Arc::new(worker::Outbox::new(config.sources.keys(), &config.destinations));
        let to_deliver = delivery::DeliveryContext {
            store: store.clone(),
            broker_url: config.broker.url.clone(),
            confirm_timeout: Duration::from_millis(config.broker.confirm_timeout_ms),
            outbox_changed: outbox.notifier(),
            metrics: metrics.clone(),
        };
        let deliver = delivery::run(to_deliver, Arc::clone(&config.destinations), stop.clone());
        let tools = WorkerContext {
            sources: Arc::clone(&config.sources),
            enrichers: Arc::new(worker::enrich::enrichers(&config.enrichments, metrics)?),
            outbox,
            store: store.clone(),
            publisher,
            topology: Arc::clone(&topology),
            retry_schedule: config.retry.schedule(),
            settings: config.worker.clone(),
            in_flight: InFlightKeys::default(),
            secret_usage: SecretUsage::default(),
            metrics: metrics.clone(),
        };
        let url = config.broker.url.clone();
        let work = worker::run(tools, url.clone(), pulse, stop.clone());
        let warning_percent = config.worker.duplicate_warning_percent;
        let import_completion = ImportCompletion {
            store: store.clone(),
            metrics: metrics.clone(),
            sources: config.sources.keys().cloned().collect(),
            duplicate_warning_percent: warning_percent,
        };
        let complete_imports = maintenance::import_completion::run(import_completion, stop.clone());
        let alert_on_duplicates =
            maintenance::duplicate_alert::run(metrics.clone(), warning_percent, stop.clone());
        let sample = maintenance::metrics_sampler::run(
            url,
            topology,
            store.clone(),
            metrics.clone(),
            stop.clone(),
        );
        self.tasks.spawn(housekeeping);
        self.tasks.spawn(deliver);
        self.tasks.spawn(work);
        self.tasks.spawn(complete_imports);
        self.tasks.spawn(alert_on_duplicates);
        self.tasks.spawn(sample);
        Ok(())
    }

    /// Waits until every role can do its work.
    pub async fn wait_until_ready(&self) {
        while !self.health.is_ready() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops: requests and batches under way are finished, nothing new begins.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await.is_err() {
            warn!(
                "some work did not finish in time and is given up; what is unsettled comes again"
            );
        }
        self.tasks.abort_all();
        self.stop_publishing.cancel();
        self.store.close().await;
        self.status_store.close().await;
        info!("stopped");
    }
}

/// The database as whoever asks after an import sees it: by a connection or
/// two that nobody works with, and for as long as an HTTP call may wait.
fn status_store(settings: &config::DatabaseConfig) -> anyhow::Result<Store> {
    let settings = config::DatabaseConfig {
        max_connections: 2,
        connect_timeout_ms: settings.connect_timeout_ms.min(RESPONSE_TIMEOUT_MS),
        statement_timeout_ms: settings.statement_timeout_ms.min(RESPONSE_TIMEOUT_MS),
        ..settings.clone()
    };
    Store::new(&settings).context("database.url")
}

/// The database as housekeeping sees it: nobody waits for what it does, and
/// vacuuming a large table takes its time.
fn maintenance_store(settings: &config::DatabaseConfig) -> anyhow::Result<Store> {
    const HOUR_MS: u64 = 3_600_000;
    let settings = config::DatabaseConfig {
        max_connections: 2,
        statement_timeout_ms: HOUR_MS,
        ..settings.clone()
    };
    Store::new(&settings).context("database.url")
}

async fn listen(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: cannot listen on {address}"))
}

/// Waits for Ctrl-C or for the signal with which service managers stop.
///
/// # Errors
/// Signals cannot be listened for.
pub async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("cannot wait for signals"),
        _ = terminate.recv() => Ok(()),
    }
}
