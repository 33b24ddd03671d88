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
use tracing::{debug, error, info, warn};

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
    #[error("the database is away or does not work")]
    Database(#[from] StoreError),
}

/// Whether the worker can do its work now.
#[derive(Clone)]
pub struct Pulse(Arc<Mutex<BTreeMap<String, String>>>);

impl Default for Pulse {
    fn default() -> Self {
        let unborn = (CONNECTION.to_owned(), "not started yet".to_owned());
        Self(Arc::new(Mutex::new([unborn].into())))
    }
}

impl Pulse {
    /// What the worker cannot do, and why; `None` if it does everything.
    pub fn trouble(&self) -> Option<String> {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = troubles.iter().map(|(part, why)| format!("{part}: {why}"));
        (!troubles.is_empty()).then(|| told.collect::<Vec<_>>().join("; "))
    }

    fn set(&self, part: &str, trouble: Option<String>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(why) => troubles.insert(part.to_owned(), why),
            None => troubles.remove(part),
        };
    }

    /// Nothing but this is wrong, or nothing else matters.
    fn only(&self, part: &str, why: &str) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.clear();
        troubles.insert(part.to_owned(), why.to_owned());
    }
}

/// The part of the worker that all others need.
const CONNECTION: &str = "connection";

/// Works until stopped, coming back by itself after either server went away.
pub async fn run(tools: Tools, broker_url: String, pulse: Pulse, stop: CancellationToken) {
    let mut pause = retry::reconnect();
    while !stop.is_cancelled() {
        let error = match connect(&tools, &broker_url).await {
            Ok(link) => {
                pause = retry::reconnect();
                work(&tools, Arc::new(link), &pulse, &stop).await;
                "the connection was lost".to_owned()
            }
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        tools.metrics.broker_up.with_label_values(&["consume"]).set(0);
        pulse.only(CONNECTION, &error);
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
    pulse.only(CONNECTION, "stopped");
}

async fn connect(tools: &Tools, broker_url: &str) -> Result<Link, BrokerError> {
    let link = Link::open(broker_url, "tallyhook worker").await?;
    tools.topology.declare(&link).await?;
    Ok(link)
}

/// Has every duty done until stopped, or until the connection is lost.
async fn work(tools: &Tools, link: Arc<Link>, pulse: &Pulse, stop: &CancellationToken) {
    let lanes = tools.topology.sources().iter().flat_map(|source| {
        (0..tools.settings.consumers).map(|number| Duty::Lane(source.clone(), number))
    });
    let duties: Vec<Duty> = lanes.chain([Duty::Archiver, Duty::Rerouter]).collect();
    let leave = stop.child_token();
    let mut tasks = JoinSet::new();
    for duty in duties {
        pulse.set(&duty.name(), Some("not consuming yet".to_owned()));
        let (tools, link) = (tools.clone(), Arc::clone(&link));
        tasks.spawn(duty.keep(tools, link, pulse.clone(), leave.clone()));
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
        () = link.down() => {}
        () = panicked => {}
        () = stop.cancelled() => {}
    }
    leave.cancel();
    let rest = async { while tasks.join_next().await.is_some() {} };
    if timeout(FAREWELL, rest).await.is_err() {
        warn!("some batches did not finish in time; their messages will be delivered again");
    }
    tasks.abort_all();
    link.close().await;
}

/// Something that consumes a queue, each for itself: trouble with one source
/// is not the others' trouble.
#[derive(Clone, Debug)]
enum Duty {
    Lane(SourceName, usize),
    Archiver,
    Rerouter,
}

impl Duty {
    fn name(&self) -> String {
        match self {
            Self::Lane(source, number) => format!("{source} {number}"),
            Self::Archiver => "archiver".to_owned(),
            Self::Rerouter => "rerouter".to_owned(),
        }
    }

    /// Does the duty until it is time to leave or the connection is lost.
    async fn keep(self, tools: Tools, link: Arc<Link>, pulse: Pulse, leave: CancellationToken) {
        let name = self.name();
        let mut failures = 0;
        while !leave.is_cancelled() && link.is_up() {
            tokio::select! {
                () = ready(&tools, &pulse, &name) => {}
                () = leave.cancelled() => return,
            }
            let begun = Instant::now();
            let Err(trouble) = self.once(&tools, &link, &pulse, &leave).await else { return };
            if !link.is_up() {
                return;
            }
            failures = if begun.elapsed() > WORKED { 1 } else { failures + 1 };
            let delay = pause(&trouble, failures);
            let error = format!("{:#}", anyhow::Error::from(trouble));
            warn!(duty = name, error, retry_ms = milliseconds(delay), "consuming stopped");
            pulse.set(&name, Some(error));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = leave.cancelled() => return,
                () = link.down() => return,
            }
            // A queue that was deleted is there again before it is consumed.
            if let Err(error) = tools.topology.declare(&link).await {
                warn!(duty = name, %error, "the queues cannot be declared");
            }
        }
    }

    async fn once(
        &self,
        tools: &Tools,
        link: &Arc<Link>,
        pulse: &Pulse,
        leave: &CancellationToken,
    ) -> Result<(), Trouble> {
        let (tools, leave, name) = (tools.clone(), leave.clone(), self.name());
        match self {
            Self::Lane(source, _) => {
                let lane = lane::Lane::open(tools, source.clone(), link).await?;
                pulse.set(&name, None);
                lane.run(leave).await
            }
            Self::Archiver => {
                let archiver = archive::Archiver::open(tools, link).await?;
                pulse.set(&name, None);
                archiver.run(leave).await
            }
            Self::Rerouter => {
                let rerouter = reroute::Rerouter::open(tools, Arc::clone(link)).await?;
                pulse.set(&name, None);
                rerouter.run(leave).await
            }
        }
    }
}

/// How long to wait before consuming again. What is handed back counts as a
/// delivery, and the broker buries a message after so many of them. So what
/// does not work is tried less and less often: 100 deliveries last for hours.
fn pause(trouble: &Trouble, failures: u32) -> Duration {
    let longest = match trouble {
        Trouble::Database(_) | Trouble::Publish(_) => Duration::from_mins(5),
        Trouble::Broker(_) => Duration::from_secs(5),
    };
    Duration::from_millis(200).saturating_mul(2_u32.saturating_pow(failures)).min(longest)
}

/// Waits until a message that is taken can be settled too.
async fn ready(tools: &Tools, pulse: &Pulse, duty: &str) {
    let mut pause = retry::reconnect();
    loop {
        tools.publisher.ready().await;
        match tools.store.probe().await {
            Ok(()) => return tools.metrics.database_up.set(1),
            Err(error) => {
                tools.metrics.database_up.set(0);
                debug!(duty, %error, "the database is not ready");
                pulse.set(duty, Some(format!("the database is not ready: {error}")));
                tokio::time::sleep(pause()).await;
            }
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
