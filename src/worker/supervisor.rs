//! Keeps the consumer of each queue running.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    ConsumerError, WorkerContext, consume::consume, dead_letter_archiver, milliseconds,
    rejected_request_consumer, source_consumer::SourceHandler, unrouted_consumer,
};
use crate::{
    broker::BrokerConnection, domain::SourceName, observability::health::HealthReporter,
    retry::reconnect_delays,
};

/// A consumer that ran for this long counts as stable: its next failure is the
/// first one again.
const STABLE_AFTER: Duration = Duration::from_mins(1);
/// The first delay before a consumer is restarted; it doubles each time.
const MIN_RESTART_DELAY: Duration = Duration::from_millis(200);
/// The longest delay after an error of RabbitMQ.
const MAX_BROKER_DELAY: Duration = Duration::from_secs(5);
/// The longest delay after an error that returned messages to their queue.
const MAX_REDELIVERY_DELAY: Duration = Duration::from_mins(5);

/// A consumer of the worker. Each fails and restarts by itself, so that an
/// error with one source does not stop the others.
#[derive(Clone, Debug)]
pub(super) enum ConsumerKind {
    /// A source's queue, and which of its consumers this is.
    Source(SourceName, usize),
    DeadLetterArchiver,
    RejectedRequests,
    Unrouted,
}

impl ConsumerKind {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Source(source, number) => format!("{source} {number}"),
            Self::DeadLetterArchiver => "dead-letter archiver".to_owned(),
            Self::RejectedRequests => "rejected requests".to_owned(),
            Self::Unrouted => "unrouted".to_owned(),
        }
    }

    /// Restarts the consumer until `stop` is cancelled or the connection is
    /// lost.
    pub(super) async fn supervise(
        self,
        context: WorkerContext,
        connection: Arc<BrokerConnection>,
        health: HealthReporter,
        stop: CancellationToken,
    ) {
        let name = self.name();
        let mut failures = 0;
        while !stop.is_cancelled() && connection.is_connected() {
            tokio::select! {
                () = wait_until_ready(&context, &health, &name) => {}
                () = stop.cancelled() => return,
            }
            let started = Instant::now();
            let result = self.run_once(&context, &connection, &health, &stop).await;
            let Err(error) = result else { return };
            if !connection.is_connected() {
                return;
            }
            failures = if started.elapsed() > STABLE_AFTER { 1 } else { failures + 1 };
            let delay = restart_delay(&error, failures);
            let error = format!("{:#}", anyhow::Error::from(error));
            let retry_ms = milliseconds(delay);
            warn!(consumer = name, error, retry_ms, "the consumer stopped and is restarted");
            health.set(&name, Some(error));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => return,
                () = connection.closed() => return,
            }
            // A queue that was deleted must exist before it is consumed.
            if let Err(error) = context.topology.declare(&connection).await {
                warn!(consumer = name, %error, "the queues cannot be declared");
            }
        }
    }

    async fn run_once(
        &self,
        context: &WorkerContext,
        connection: &Arc<BrokerConnection>,
        health: &HealthReporter,
        stop: &CancellationToken,
    ) -> Result<(), ConsumerError> {
        let context = context.clone();
        let topology = Arc::clone(&context.topology);
        let on_started = || health.set(&self.name(), None);
        match self {
            Self::Source(source, _) => {
                let handler = SourceHandler { context, source: source.clone() };
                let (queue, limits) = (handler.queue(), handler.limits());
                consume(connection, &queue, limits, handler, on_started, stop).await
            }
            Self::DeadLetterArchiver => {
                let handler = dead_letter_archiver::DeadLetterArchiver { context };
                let queue = topology.dead_letter_queue();
                let limits = dead_letter_archiver::LIMITS;
                consume(connection, &queue, limits, handler, on_started, stop).await
            }
            Self::RejectedRequests => {
                let handler = rejected_request_consumer::RejectedRequestConsumer { context };
                let queue = topology.rejected_request_queue();
                let limits = rejected_request_consumer::LIMITS;
                consume(connection, &queue, limits, handler, on_started, stop).await
            }
            Self::Unrouted => {
                let connection = Arc::clone(connection);
                let handler = unrouted_consumer::UnroutedConsumer { context, connection };
                let (queue, limits) = (topology.unrouted_queue(), unrouted_consumer::LIMITS);
                consume(&handler.connection.clone(), &queue, limits, handler, on_started, stop)
                    .await
            }
        }
    }
}

/// The delay before a consumer is restarted. Messages that return to their
/// queue count as delivered, and RabbitMQ dead-letters them at the delivery
/// limit: with these delays, 100 deliveries last for hours.
fn restart_delay(error: &ConsumerError, failures: u32) -> Duration {
    let max = match error {
        ConsumerError::Database(_)
        | ConsumerError::Publish(_)
        | ConsumerError::UnknownSource(_) => MAX_REDELIVERY_DELAY,
        ConsumerError::Broker(_) => MAX_BROKER_DELAY,
    };
    MIN_RESTART_DELAY.saturating_mul(2_u32.saturating_pow(failures)).min(max)
}

/// Waits until a consumed message can also be processed: the publisher is
/// connected and the database is writable.
async fn wait_until_ready(context: &WorkerContext, health: &HealthReporter, consumer: &str) {
    let mut next_delay = reconnect_delays();
    loop {
        context.publisher.wait_until_ready().await;
        match context.store.check_writable().await {
            Ok(()) => return context.metrics.database_up.set(1),
            Err(error) => {
                context.metrics.database_up.set(0);
                debug!(consumer, %error, "the database is not ready");
                health.set(consumer, Some(format!("the database is not ready: {error}")));
                tokio::time::sleep(next_delay()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerError, PublishError};

    #[test]
    fn restart_delay_doubles_up_to_the_maximum_of_its_error() {
        let broker = ConsumerError::Broker(BrokerError::InvalidUrl);
        let publish = ConsumerError::Publish(PublishError::Blocked);
        let delays = |error| [1, 2, 3, 5, 12, 40].map(|n| restart_delay(error, n).as_millis());
        assert_eq!(delays(&broker), [400, 800, 1600, 5000, 5000, 5000]);
        assert_eq!(delays(&publish), [400, 800, 1600, 6400, 300_000, 300_000]);
    }
}
