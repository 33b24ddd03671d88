//! Delivery: sends what the outbox holds to its destinations.
//!
//! A delivery is claimed when it is due and no earlier delivery of its
//! document waits. Its idempotency key and its request are committed before the
//! first request is sent, and the result is committed afterwards. After a crash
//! in between, the lease expires and the result is unknown: the next worker
//! looks the document up, where the destination supports it, and then sends the
//! same bytes with the same key.
//!
//! Any number of processes may deliver concurrently: rows are locked while they
//! are claimed, and leased while they are sent.

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

/// How often the outbox is polled without a notification: another process may
/// have written to it, or a delay is over.
const OUTBOX_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The `result` labels of `tallyhook_delivery_attempts_total`.
const ATTEMPT_RESULTS: [&str; 4] = ["delivered", "uncertain", "retry_later", "rejected"];

/// What the deliveries of every destination share.
#[derive(Clone)]
pub struct DeliveryContext {
    /// The database with the outbox.
    pub store: Store,
    /// RabbitMQ's URL, for AMQP destinations.
    pub broker_url: String,
    /// Timeout of the broker's publisher confirms.
    pub confirm_timeout: Duration,
    /// Notified after the outbox has changed.
    pub outbox_changed: Arc<Notify>,
    /// Attempts, durations and circuit breakers are counted here.
    pub metrics: Metrics,
}

/// Delivers to all destinations until stopped. Requests in flight are finished.
pub async fn run(
    context: DeliveryContext,
    destinations: Arc<BTreeMap<String, Destination>>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for name in destinations.keys() {
        for result in ATTEMPT_RESULTS {
            context.metrics.delivery_attempts.with_label_values(&[name, result]);
        }
        let (context, destinations) = (context.clone(), Arc::clone(&destinations));
        let (name, stop) = (name.clone(), stop.clone());
        tasks.spawn(async move {
            let Some(destination) = destinations.get(&name) else { return };
            match &destination.transport {
                Transport::Http(http) => http::run(&context, destination, http, &stop).await,
                Transport::Amqp { .. } => amqp::run(&context, destination, &stop).await,
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

impl DeliveryContext {
    /// Waits for a notification, the next poll, or the stop signal.
    async fn wait_for_work(&self, stop: &CancellationToken) {
        tokio::select! {
            () = self.outbox_changed.notified() => {}
            () = tokio::time::sleep(OUTBOX_POLL_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn sleep_or_stop(delay: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = stop.cancelled() => {}
    }
}
