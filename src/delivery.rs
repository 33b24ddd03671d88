//! Taking what the outbox holds to the targets that are to hear it.
//!
//! The way of a delivery: its turn comes when it is due and nothing of its
//! document stands before it. Its key and what is sent are committed before
//! the first call. Then it is sent, and what came of it is committed. A crash
//! in between leaves a delivery whose lease runs out: nobody knows whether the
//! target has it, so the target is asked, where it can be, and then gets the
//! same bytes under the same key.
//!
//! Any number of processes may work at once: rows are locked while they are
//! claimed, and leased while they are sent.

mod amqp;
mod attempt;
mod backoff;
mod http;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    destinations::{Destination, Transport},
    observability::metrics::Metrics,
    store::Store,
};

/// How often the outbox is looked into if nobody tells of anything new:
/// another process may have written, or a pause is over.
const OUTBOX_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What came of an attempt, as the metric tells it.
const ATTEMPT_RESULTS: [&str; 4] = ["delivered", "uncertain", "retry_later", "rejected"];

/// What every target's deliveries need.
#[derive(Clone)]
pub struct DeliveryContext {
    /// The database.
    pub store: Store,
    /// RabbitMQ's URL, for targets that are exchanges.
    pub broker_url: String,
    /// How long the broker's confirms may take.
    pub confirm_timeout: Duration,
    /// Told whenever something was written into the outbox.
    pub outbox_changed: Arc<Notify>,
    /// What is measured.
    pub metrics: Metrics,
}

/// Delivers to every target until stopped; calls under way are finished.
pub async fn run(
    tools: DeliveryContext,
    targets: Arc<BTreeMap<String, Destination>>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for name in targets.keys() {
        for result in ATTEMPT_RESULTS {
            tools.metrics.delivery_attempts.with_label_values(&[name, result]);
        }
        let (tools, targets, name) = (tools.clone(), Arc::clone(&targets), name.clone());
        let stop = stop.clone();
        tasks.spawn(async move {
            // The names are the map's own.
            let Some(target) = targets.get(&name) else { return };
            match &target.transport {
                Transport::Http(http) => http::run(&tools, target, http, &stop).await,
                Transport::Amqp { .. } => amqp::run(&tools, target, &stop).await,
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

impl DeliveryContext {
    /// Waits until there may be something to do.
    async fn wait_for_work(&self, stop: &CancellationToken) {
        tokio::select! {
            () = self.outbox_changed.notified() => {}
            () = tokio::time::sleep(OUTBOX_POLL_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Waits so long, or until it is time to stop.
async fn sleep_or_stop(pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
    }
}
