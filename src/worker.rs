//! The consumers: collect a batch, apply it in one transaction, publish what
//! failed to a retry queue or the dead-letter queue, and acknowledge it.

pub mod apply;
mod consume;
pub mod dead_letter_archiver;
pub mod enrich;
pub mod in_flight;
pub mod message;
pub mod prefetch;
mod rejected_request_consumer;
mod retry_or_dead_letter;
pub mod secret_usage;
pub mod source_consumer;
mod supervisor;
mod unrouted_consumer;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    broker::{self, BrokerConnection, BrokerError, PublishError, Publisher, Topology},
    config,
    domain::SourceName,
    observability::{health::HealthReporter, metrics::Metrics},
    retry::RetrySchedule,
    sources::Source,
    store::{Store, StoreError},
};

pub use apply::Outbox;
use enrich::Enricher;
pub use in_flight::InFlightKeys;
pub use secret_usage::SecretUsage;
use supervisor::ConsumerKind;

/// How long the current batches may take when the worker stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// What every consumer needs.
#[derive(Clone)]
pub struct WorkerContext {
    /// The configured sources.
    pub sources: Arc<BTreeMap<SourceName, Source>>,
    /// The enrichers of sources whose thin events are fetched.
    pub enrichers: Arc<BTreeMap<SourceName, Enricher>>,
    /// Writes the deliveries for destinations.
    pub outbox: Arc<Outbox>,
    /// The database.
    pub store: Store,
    /// Publishes retries and dead letters.
    pub publisher: Publisher,
    /// The exchanges and queues.
    pub topology: Arc<Topology>,
    /// The delays between attempts.
    pub retry_schedule: RetrySchedule,
    /// Batch sizes and timeouts.
    pub settings: config::WorkerConfig,
    /// The keys and documents of this process's open transactions.
    pub in_flight: InFlightKeys,
    /// When each secret was last used.
    pub secret_usage: SecretUsage,
    /// The metrics of this process.
    pub metrics: Metrics,
}

impl WorkerContext {
    /// How long a batch is retried while the database is unavailable.
    fn database_retry_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.database_retry_timeout_ms)
    }
}

/// Why a consumer stopped. RabbitMQ delivers the unacknowledged messages again,
/// and their attempts are not counted.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The consuming connection, channel or queue is gone.
    #[error("the consumer of RabbitMQ failed")]
    Broker(#[from] BrokerError),
    /// A retry or dead letter was not confirmed.
    #[error("a retry or dead letter was not confirmed")]
    Publish(#[from] PublishError),
    /// The database was unavailable for longer than a batch is retried.
    #[error("the database is unavailable")]
    Database(#[from] StoreError),
    /// The source of the queue is not configured.
    #[error("the source {0} is not configured")]
    UnknownSource(SourceName),
}

/// The component of the worker's health that all others depend on.
const CONNECTION: &str = "connection";

/// The health of a worker that has not started.
pub fn initial_health() -> HealthReporter {
    HealthReporter::new(CONNECTION, "not started yet")
}

/// Runs the worker until `stop` is cancelled. It reconnects by itself.
pub async fn run(
    context: WorkerContext,
    broker_url: String,
    health: HealthReporter,
    stop: CancellationToken,
) {
    let connect = || connect(&context, &broker_url);
    let serve = |connection| run_consumers(&context, Arc::new(connection), &health, &stop);
    let on_down = |error: &str| {
        context.metrics.broker_up.with_label_values(&["consume"]).set(0);
        health.set_exclusively(CONNECTION, error);
    };
    broker::supervise("consume", &stop, connect, serve, on_down).await;
    health.set_exclusively(CONNECTION, "stopped");
}

async fn connect(
    context: &WorkerContext,
    broker_url: &str,
) -> Result<BrokerConnection, BrokerError> {
    let connection = BrokerConnection::open(broker_url, "tallyhook worker").await?;
    context.topology.declare(&connection).await?;
    Ok(connection)
}

/// Runs every consumer until `stop` is cancelled or the connection is lost.
/// Returns why it ended.
async fn run_consumers(
    context: &WorkerContext,
    connection: Arc<BrokerConnection>,
    health: &HealthReporter,
    stop: &CancellationToken,
) -> String {
    let sources = context.topology.sources().iter().flat_map(|source| {
        (0..context.settings.consumers_per_source)
            .map(|number| ConsumerKind::Source(source.clone(), number))
    });
    let kinds: Vec<ConsumerKind> = sources
        .chain([
            ConsumerKind::DeadLetterArchiver,
            ConsumerKind::RejectedRequests,
            ConsumerKind::Unrouted,
        ])
        .collect();
    let stop_consumers = stop.child_token();
    let mut tasks = JoinSet::new();
    for kind in kinds {
        health.set(&kind.name(), Some("not consuming yet".to_owned()));
        let (context, connection) = (context.clone(), Arc::clone(&connection));
        tasks.spawn(kind.supervise(context, connection, health.clone(), stop_consumers.clone()));
    }
    health.set(CONNECTION, None);
    info!(sources = context.topology.sources().len(), "consuming");
    context.metrics.broker_up.with_label_values(&["consume"]).set(1);

    let panicked = async {
        while let Some(ended) = tasks.join_next().await {
            // A bug. The message that caused it is delivered again, up to the
            // delivery limit.
            if let Err(panic) = ended {
                error!(error = %panic, "a consumer task panicked");
                return;
            }
        }
    };
    let reason = tokio::select! {
        () = connection.closed() => "the connection was lost",
        () = panicked => "a consumer task panicked",
        () = stop.cancelled() => "stopping",
    };
    stop_consumers.cancel();
    let remaining = async { while tasks.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_TIMEOUT, remaining).await.is_err() {
        warn!("some batches did not finish in time; their messages are delivered again");
    }
    tasks.abort_all();
    connection.close().await;
    reason.to_owned()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
