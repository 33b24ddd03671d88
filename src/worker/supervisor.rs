//! What a worker does for each queue, kept up as long as it can be done.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    ConsumerError, WorkerContext, dead_letter_archiver, milliseconds, pulse::HealthRegistry,
    rejected_request_consumer, source_consumer, unrouted_consumer,
};
use crate::{broker::BrokerConnection, domain::SourceName, retry};

/// Consuming that lasted this long worked: what broke it is a new trouble.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// Something that consumes a queue, each for itself: trouble with one source
/// is not the others' trouble.
#[derive(Clone, Debug)]
pub(super) enum ConsumerKind {
    Source(SourceName, usize),
    DeadLetterArchiver,
    RejectedRequests,
    Unrouted,
}

impl ConsumerKind {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Source(source, number) => format!("{source} {number}"),
            Self::DeadLetterArchiver => "archiver".to_owned(),
            Self::RejectedRequests => "call log".to_owned(),
            Self::Unrouted => "rerouter".to_owned(),
        }
    }

    /// Does the duty until it is time to leave or the connection is lost.
    pub(super) async fn supervise(
        self,
        tools: WorkerContext,
        link: Arc<BrokerConnection>,
        pulse: HealthRegistry,
        leave: CancellationToken,
    ) {
        let name = self.name();
        let mut failures = 0;
        while !leave.is_cancelled() && link.is_connected() {
            tokio::select! {
                () = wait_until_ready(&tools, &pulse, &name) => {}
                () = leave.cancelled() => return,
            }
            let begun = Instant::now();
            let Err(trouble) = self.run_once(&tools, &link, &pulse, &leave).await else { return };
            if !link.is_connected() {
                return;
            }
            failures = if begun.elapsed() > STABLE_AFTER { 1 } else { failures + 1 };
            let delay = restart_delay(&trouble, failures);
            let error = format!("{:#}", anyhow::Error::from(trouble));
            warn!(duty = name, error, retry_ms = milliseconds(delay), "consuming stopped");
            pulse.set(&name, Some(error));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = leave.cancelled() => return,
                () = link.closed() => return,
            }
            // A queue that was deleted is there again before it is consumed.
            if let Err(error) = tools.topology.declare(&link).await {
                warn!(duty = name, %error, "the queues cannot be declared");
            }
        }
    }

    async fn run_once(
        &self,
        tools: &WorkerContext,
        link: &Arc<BrokerConnection>,
        pulse: &HealthRegistry,
        leave: &CancellationToken,
    ) -> Result<(), ConsumerError> {
        let (tools, leave, name) = (tools.clone(), leave.clone(), self.name());
        match self {
            Self::Source(source, _) => {
                let lane =
                    source_consumer::SourceConsumer::open(tools, source.clone(), link).await?;
                pulse.set(&name, None);
                lane.run(leave).await
            }
            Self::DeadLetterArchiver => {
                let archiver = dead_letter_archiver::DeadLetterArchiver::open(tools, link).await?;
                pulse.set(&name, None);
                archiver.run(leave).await
            }
            Self::RejectedRequests => {
                let call_log =
                    rejected_request_consumer::RejectedRequestConsumer::open(tools, link).await?;
                pulse.set(&name, None);
                call_log.run(leave).await
            }
            Self::Unrouted => {
                let rerouter =
                    unrouted_consumer::UnroutedConsumer::open(tools, Arc::clone(link)).await?;
                pulse.set(&name, None);
                rerouter.run(leave).await
            }
        }
    }
}

/// How long to wait before consuming again. What is handed back counts as a
/// delivery, and the broker buries a message after so many of them. So what
/// does not work is tried less and less often: 100 deliveries last for hours.
fn restart_delay(trouble: &ConsumerError, failures: u32) -> Duration {
    let longest = match trouble {
        ConsumerError::Database(_) | ConsumerError::Publish(_) => Duration::from_mins(5),
        ConsumerError::Broker(_) => Duration::from_secs(5),
    };
    Duration::from_millis(200).saturating_mul(2_u32.saturating_pow(failures)).min(longest)
}

/// Waits until a message that is taken can be settled too.
async fn wait_until_ready(tools: &WorkerContext, pulse: &HealthRegistry, duty: &str) {
    let mut pause = retry::reconnect_delays();
    loop {
        tools.publisher.wait_until_ready().await;
        match tools.store.check_writable().await {
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
