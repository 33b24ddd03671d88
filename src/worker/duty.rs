//! What a worker does for each queue, kept up as long as it can be done.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Tools, Trouble, archive, call_log, lane, milliseconds, pulse::Pulse, reroute};
use crate::{broker::Link, domain::SourceName, retry};

/// Consuming that lasted this long worked: what broke it is a new trouble.
const WORKED: Duration = Duration::from_mins(1);

/// Something that consumes a queue, each for itself: trouble with one source
/// is not the others' trouble.
#[derive(Clone, Debug)]
pub(super) enum Duty {
    Lane(SourceName, usize),
    Archiver,
    CallLog,
    Rerouter,
}

impl Duty {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Lane(source, number) => format!("{source} {number}"),
            Self::Archiver => "archiver".to_owned(),
            Self::CallLog => "call log".to_owned(),
            Self::Rerouter => "rerouter".to_owned(),
        }
    }

    /// Does the duty until it is time to leave or the connection is lost.
    pub(super) async fn keep(
        self,
        tools: Tools,
        link: Arc<Link>,
        pulse: Pulse,
        leave: CancellationToken,
    ) {
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
            Self::CallLog => {
                let call_log = call_log::CallLog::open(tools, link).await?;
                pulse.set(&name, None);
                call_log.run(leave).await
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
