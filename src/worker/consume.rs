//! The loop that every consumer of the worker shares: collect a batch, handle
//! it, acknowledge it.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{ConsumerError, prefetch::AdaptivePrefetch};
use crate::broker::{self, Batch, BatchLimits, BrokerConnection, Consumer, Delivery};

/// What one kind of consumer does with a batch.
pub(super) trait BatchHandler {
    /// Handles every message of a batch. After `Ok` the batch is acknowledged,
    /// and nothing is consumed for the returned time.
    ///
    /// # Errors
    /// [`ConsumerError`]: nothing is acknowledged, and RabbitMQ delivers the
    /// batch again.
    fn handle(
        &self,
        deliveries: Vec<Delivery>,
        now: OffsetDateTime,
    ) -> impl Future<Output = Result<Duration, ConsumerError>> + Send;
}

/// Consumes a queue until `stop` is cancelled; the current batch is finished
/// first. `on_started` runs once the queue is consumed.
///
/// # Errors
/// [`ConsumerError`]. RabbitMQ delivers unacknowledged messages again.
pub(super) async fn consume(
    connection: &BrokerConnection,
    queue: &str,
    limits: BatchLimits,
    handler: impl BatchHandler,
    on_started: impl FnOnce(),
    stop: &CancellationToken,
) -> Result<(), ConsumerError> {
    let consumer = BatchConsumer::open(connection, queue, limits).await?;
    on_started();
    consumer.run(&handler, stop).await
}

/// Consumes a queue in batches, with a prefetch that follows the size of the
/// messages.
pub(super) struct BatchConsumer {
    consumer: Consumer,
    prefetch: AdaptivePrefetch,
    limits: BatchLimits,
}

impl BatchConsumer {
    pub(super) async fn open(
        connection: &BrokerConnection,
        queue: &str,
        limits: BatchLimits,
    ) -> Result<Self, ConsumerError> {
        let prefetch = AdaptivePrefetch::new(limits.max_messages);
        let consumer = Consumer::open(connection, queue, prefetch.prefetch()).await?;
        Ok(Self { consumer, prefetch, limits })
    }

    /// Handles batches until `stop` is cancelled.
    ///
    /// # Errors
    /// [`ConsumerError`], also the handler's.
    pub(super) async fn run(
        mut self,
        handler: &impl BatchHandler,
        stop: &CancellationToken,
    ) -> Result<(), ConsumerError> {
        let result = self.handle_batches(handler, stop).await;
        // Returns what is unacknowledged to the queue.
        self.close().await;
        result
    }

    async fn handle_batches(
        &mut self,
        handler: &impl BatchHandler,
        stop: &CancellationToken,
    ) -> Result<(), ConsumerError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = self.collect() => batch?,
            };
            let pause = handler.handle(batch.deliveries, OffsetDateTime::now_utc()).await?;
            self.ack(batch.last_tag).await?;
            if !pause.is_zero() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// Waits for a batch.
    pub(super) async fn collect(&mut self) -> Result<Batch, ConsumerError> {
        let batch = broker::collect(&mut self.consumer, self.limits).await?;
        if let Some(prefetch) = self.prefetch.observe(batch.deliveries.len(), batch.bytes) {
            debug!(prefetch, "the prefetch changes");
            self.consumer.set_prefetch(prefetch).await?;
        }
        Ok(batch)
    }

    /// Acknowledges every delivery up to this tag.
    pub(super) async fn ack(&self, last_tag: u64) -> Result<(), ConsumerError> {
        Ok(self.consumer.ack_up_to(last_tag).await?)
    }

    pub(super) async fn close(self) {
        self.consumer.close().await;
    }
}
