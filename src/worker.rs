//! The consumer workers: collect a batch, apply it in one transaction, settle
//! every message of it, and only then acknowledge. Beside them the archiver,
//! which brings the dead before a person, the call log and the rerouter.

pub mod apply;
pub mod batch;
pub mod dead_letter_archiver;
pub mod enrich;
pub mod in_flight;
pub mod prefetch;
pub mod pulse;
mod rejected_request_consumer;
pub mod retry_or_dead_letter;
pub mod secret_usage;
pub mod source_consumer;
mod supervisor;
mod unrouted_consumer;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    broker::{BrokerConnection, BrokerError, PublishError, Publisher, Topology},
    config,
    domain::SourceName,
    observability::metrics::Metrics,
    retry,
    retry::RetrySchedule,
    sources::Source,
    store::{Store, StoreError},
};

pub use apply::Outbox;
use enrich::Enricher;
pub use in_flight::InFlightKeys;
use pulse::CONNECTION;
pub use pulse::HealthRegistry;
pub use secret_usage::SecretUsage;
use supervisor::ConsumerKind;

/// How long lanes may take to finish their batches when the worker stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// What every lane needs.
#[derive(Clone)]
pub struct WorkerContext {
    /// The sources' adapters.
    pub sources: Arc<BTreeMap<SourceName, Source>>,
    /// What fetches the things that thin events name.
    pub enrichers: Arc<BTreeMap<SourceName, Enricher>>,
    /// The systems that hear of what changed.
    pub outbox: Arc<Outbox>,
    /// The database.
    pub store: Store,
    /// Publishes retries and dead letters.
    pub publisher: Publisher,
    /// Where to.
    pub topology: Arc<Topology>,
    /// When to try again.
    pub retry_schedule: RetrySchedule,
    /// Batch sizes and times.
    pub settings: config::WorkerConfig,
    /// What this process's transactions touch.
    pub in_flight: InFlightKeys,
    /// Which secrets are in use.
    pub secret_usage: SecretUsage,
    /// What is measured.
    pub metrics: Metrics,
    /// Whoever wants to know when each message was committed.
    pub commit_listener: Option<CommitListener>,
}

/// Hears of each transaction: the moment in which its commit came back, and
/// the receipts of the messages in it.
pub type CommitListener = mpsc::UnboundedSender<(Instant, Vec<Uuid>)>;

/// Why consuming had to stop. What was not settled goes back to its queue,
/// and no attempt is counted: an outage is nobody's poison.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The consuming connection, channel or queue is gone.
    #[error("consuming broke")]
    Broker(#[from] BrokerError),
    /// A retry or dead letter could not be made durable.
    #[error("a retry or dead letter was not confirmed")]
    Publish(#[from] PublishError),
    /// The database stayed away for longer than a batch is held.
    #[error("the database is away or does not work")]
    Database(#[from] StoreError),
}

/// Works until stopped, coming back by itself after either server went away.
pub async fn run(
    tools: WorkerContext,
    broker_url: String,
    pulse: HealthRegistry,
    stop: CancellationToken,
) {
    let mut pause = retry::reconnect_delays();
    while !stop.is_cancelled() {
        let error = match connect(&tools, &broker_url).await {
            Ok(link) => {
                pause = retry::reconnect_delays();
                run_consumers(&tools, Arc::new(link), &pulse, &stop).await;
                "the connection was lost".to_owned()
            }
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        tools.metrics.broker_up.with_label_values(&["consume"]).set(0);
        pulse.set_exclusively(CONNECTION, &error);
        if stop.is_cancelled() {
            break;
        }
        let delay = pause();
        warn!(error, retry_ms = milliseconds(delay), "consuming connection is down");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => {}
        }
    }
    pulse.set_exclusively(CONNECTION, "stopped");
}

async fn connect(tools: &WorkerContext, broker_url: &str) -> Result<BrokerConnection, BrokerError> {
    let link = BrokerConnection::open(broker_url, "tallyhook worker").await?;
    tools.topology.declare(&link).await?;
    Ok(link)
}

/// Has every duty done until stopped, or until the connection is lost.
async fn run_consumers(
    tools: &WorkerContext,
    link: Arc<BrokerConnection>,
    pulse: &HealthRegistry,
    stop: &CancellationToken,
) {
    let lanes = tools.topology.sources().iter().flat_map(|source| {
        (0..tools.settings.consumers_per_source)
            .map(|number| ConsumerKind::Source(source.clone(), number))
    });
    let duties: Vec<ConsumerKind> = lanes
        .chain([
            ConsumerKind::DeadLetterArchiver,
            ConsumerKind::RejectedRequests,
            ConsumerKind::Unrouted,
        ])
        .collect();
    let leave = stop.child_token();
    let mut tasks = JoinSet::new();
    for duty in duties {
        pulse.set(&duty.name(), Some("not consuming yet".to_owned()));
        let (tools, link) = (tools.clone(), Arc::clone(&link));
        tasks.spawn(duty.supervise(tools, link, pulse.clone(), leave.clone()));
    }
    pulse.set(CONNECTION, None);
    info!(sources = tools.topology.sources().len(), "consuming");
    tools.metrics.broker_up.with_label_values(&["consume"]).set(1);

    let panicked = async {
        while let Some(ended) = tasks.join_next().await {
            // A mistake of ours; the message that met it comes back, and the
            // delivery limit keeps it from doing so for ever.
            if let Err(panic) = ended {
                error!(error = %panic, "a duty panicked");
                return;
            }
        }
    };
    tokio::select! {
        () = link.closed() => {}
        () = panicked => {}
        () = stop.cancelled() => {}
    }
    leave.cancel();
    let rest = async { while tasks.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_TIMEOUT, rest).await.is_err() {
        warn!("some batches did not finish in time; their messages will be delivered again");
    }
    tasks.abort_all();
    link.close().await;
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
