//! The dead-letter queue of the broker, for operators whose workers are down.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{
    broker::{self, Batch, BatchLimits, BrokerConnection, BrokerError, Consumer, Topology},
    config::BrokerConfig,
    domain::DeadLetter,
    store::{Store, StoreError, dead_letters},
};

/// The name of the connection that RabbitMQ shows.
const CONNECTION_NAME: &str = "tallyhook dead drain";

/// Why the queue cannot be archived. Messages that were not archived stay in the queue.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// A broker error.
    #[error("the dead-letter queue cannot be read")]
    Broker(#[from] BrokerError),
    /// A database error.
    #[error("the dead letters cannot be archived")]
    Store(#[from] StoreError),
}

/// A batch of the dead-letter queue.
const BATCH: BatchLimits = BatchLimits { max_messages: 100, max_wait: Duration::from_millis(20) };

/// Counts the messages in the dead-letter queue.
///
/// # Errors
/// [`DrainError::Broker`].
pub async fn count(settings: &BrokerConfig) -> Result<u32, DrainError> {
    let topology = Topology::publish_only(&settings.prefix);
    let connection = BrokerConnection::open(&settings.url, CONNECTION_NAME).await?;
    let depths = topology.depths(&connection).await?;
    connection.close().await;
    let queue = topology.dead_letter_queue();
    let depth = depths.into_iter().find(|depth| depth.queue == queue);
    Ok(depth.and_then(|depth| depth.ready).unwrap_or_default())
}

/// Archives the dead-letter queue until no message has come for `idle_timeout`. Returns the number
/// of dead letters.
///
/// # Errors
/// [`DrainError`].
pub async fn drain(
    settings: &BrokerConfig,
    store: &Store,
    idle_timeout: Duration,
) -> Result<usize, DrainError> {
    let queue = Topology::publish_only(&settings.prefix).dead_letter_queue();
    let connection = BrokerConnection::open(&settings.url, CONNECTION_NAME).await?;
    let drained = drain_queue(&connection, &queue, store, idle_timeout).await;
    connection.close().await;
    drained
}

/// Archives a dead-letter queue as [`drain`] does, over a connection of the caller.
///
/// # Errors
/// As [`drain`].
pub async fn drain_queue(
    connection: &BrokerConnection,
    queue: &str,
    store: &Store,
    idle_timeout: Duration,
) -> Result<usize, DrainError> {
    // Twice a batch: the next one arrives while the last one is archived.
    let prefetch = u16::try_from(2 * BATCH.max_messages).unwrap_or(u16::MAX);
    let mut consumer = Consumer::open(connection, queue, prefetch).await?;
    let mut archived = 0;
    while let Ok(batch) = timeout(idle_timeout, broker::collect(&mut consumer, BATCH)).await {
        let Batch { deliveries, last_tag, .. } = batch?;
        let now = OffsetDateTime::now_utc();
        let dead_letters = DeadLetter::newest_copies(
            deliveries.into_iter().map(|delivery| delivery.message.into_dead_letter(now)),
        );
        dead_letters::archive(store, Duration::ZERO, &dead_letters).await?;
        archived += dead_letters.len();
        consumer.ack_up_to(last_tag).await?;
    }
    consumer.close().await;
    Ok(archived)
}
