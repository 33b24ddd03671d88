//! The consumer workers: collect a batch, apply it in one transaction, settle
//! every message of it, and only then acknowledge. Beside them the archiver,
//! which brings the dead before a person, and the rerouter.

pub mod apply;
pub mod archive;
pub mod collect;
pub mod lane;
pub mod patience;
mod reroute;
pub mod settle;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    adapter::Adapter,
    broker::{BrokerError, Link, PublishError, Publisher, Topology},
    config,
    domain::SourceName,
    metrics::Metrics,
    retry::{self, Schedule},
    store::{Store, StoreError},
};

/// How long lanes may take to finish their batches when the worker stops.
const FAREWELL: Duration = Duration::from_secs(20);

/// Consuming that lasted this long worked: what broke it is a new trouble.
const WORKED: Duration = Duration::from_mins(1);

/// What every lane needs.
#[derive(Clone)]
pub struct Tools {
    /// The sources' adapters.
    pub sources: Arc<BTreeMap<SourceName, Adapter>>,
    /// The database.
    pub store: Store,
    /// Publishes retries and dead letters.
    pub publisher: Publisher,
    /// Where to.
    pub topology: Arc<Topology>,
    /// When to try again.
    pub schedule: Schedule,
    /// Batch sizes and times.
    pub settings: config::Worker,
    /// What is measured.
    pub metrics: Metrics,
}

/// Why consuming had to stop. What was not settled goes back to its queue,
/// and no attempt is counted: an outage is nobody's poison.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The consuming connection, channel or queue is gone.
    #[error("consuming broke")]
    Broker(#[from] BrokerError),
    /// A retry or dead letter could not be made durable.
    #[error("a retry or dead letter was not confirmed")]
    Publish(#[from] PublishError),
    /// The database stayed away for longer than a batch is held.
    #[error("the database is away")]
    Database(#[from] StoreError),
}

/// Whether the worker can do its work now.
#[derive(Clone)]
pub struct Pulse(Arc<Mutex<Option<String>>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some("not started yet".to_owned()))))
    }
}

impl Pulse {
    /// Why the worker does nothing; `None` if it works.
    pub fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, trouble: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Consumes every source until stopped, coming back by itself after either
/// server went away.
pub async fn run(tools: Tools, broker_url: String, pulse: Pulse, stop: CancellationToken) {
    let work = async {
        let mut failures = 0;
        loop {
            ready(&tools, &pulse).await;
            let begun = Instant::now();
            let Err(trouble) = consume(&tools, &broker_url, &pulse, &stop).await else { break };
            tools.metrics.broker_up.with_label_values(&["consume"]).set(0);
            failures = if begun.elapsed() > WORKED { 0 } else { failures + 1 };
            let delay = pause(&trouble, failures);
            let error = format!("{:#}", anyhow::Error::from(trouble));
            warn!(
                error,
                retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "consuming stopped"
            );
            pulse.set(Some(error));
            tokio::time::sleep(delay).await;
        }
    };
    // Consuming sees the stop itself and finishes what it has in hand.
    let idle = async {
        stop.cancelled().await;
        while pulse.trouble().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = idle => {}
    }
    pulse.set(Some("stopped".to_owned()));
}

/// How long to wait before consuming again. Each delivery that is handed back
/// counts towards the delivery limit, so a database that answers but does not
/// work is tried less and less often: 100 deliveries last for hours.
fn pause(trouble: &Trouble, failures: u32) -> Duration {
    let longest = match trouble {
        Trouble::Database(_) => Duration::from_mins(5),
        Trouble::Broker(_) | Trouble::Publish(_) => Duration::from_secs(5),
    };
    Duration::from_millis(200).saturating_mul(2_u32.saturating_pow(failures)).min(longest)
}

/// Waits until both servers are there: before that, no message is taken.
async fn ready(tools: &Tools, pulse: &Pulse) {
    let mut pause = retry::reconnect();
    loop {
        tools.publisher.ready().await;
        match tools.store.probe().await {
            Ok(()) => break,
            Err(error) => {
                tools.metrics.database_up.set(0);
                warn!(%error, "the database is not ready");
                pulse.set(Some(format!("the database is not ready: {error}")));
                tokio::time::sleep(pause()).await;
            }
        }
    }
    tools.metrics.database_up.set(1);
}

/// Consumes until stopped (`Ok`) or until something breaks.
async fn consume(
    tools: &Tools,
    broker_url: &str,
    pulse: &Pulse,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    let link = Link::open(broker_url, "tallyhook worker").await?;
    // A queue that was deleted is there again before it is consumed.
    tools.topology.declare(&link).await?;
    let leave = stop.child_token();
    let mut tasks = JoinSet::new();
    for source in tools.topology.sources() {
        for _ in 0..tools.settings.consumers {
            let lane = lane::Lane::open(tools.clone(), source.clone(), &link).await?;
            tasks.spawn(lane.run(leave.clone()));
        }
    }
    let archiver = archive::Archiver::open(tools.clone(), &link).await?;
    tasks.spawn(archiver.run(leave.clone()));
    let rerouter = reroute::Rerouter::open(tools.clone(), &link).await?;
    tasks.spawn(rerouter.run(leave.clone()));

    info!(sources = tools.topology.sources().len(), "consuming");
    tools.metrics.broker_up.with_label_values(&["consume"]).set(1);
    pulse.set(None);

    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = match ended {
            Ok(ended) => ended,
            // A panic is a mistake of ours; the message that met it comes
            // back, and the delivery limit keeps it from doing so for ever.
            Err(panicked) => {
                tracing::error!(error = %panicked, "a lane panicked");
                Err(Trouble::Broker(BrokerError::Ended("a lane that panicked".to_owned())))
            }
        };
        if let Err(trouble) = ended {
            result = Err(trouble);
            break;
        }
    }
    leave.cancel();
    let rest = async { while tasks.join_next().await.is_some() {} };
    if timeout(FAREWELL, rest).await.is_err() {
        warn!("some batches did not finish in time; their messages will be delivered again");
    }
    tasks.abort_all();
    link.close().await;
    if stop.is_cancelled() { Ok(()) } else { result }
}
