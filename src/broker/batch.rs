//! Collects deliveries into batches.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{BrokerError, Consumer, Delivery};

/// A batch of this many bytes is full. With its default `work_mem` of 4 MB,
/// PostgreSQL handles that much in one statement without a temporary file.
pub const MAX_BATCH_BYTES: usize = 3 * 1024 * 1024;

/// When a batch is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most messages; at least 1.
    pub max_messages: usize,
    /// How long to wait for more messages after the first.
    pub max_wait: Duration,
}

/// Deliveries in the order of arrival, at least one.
#[derive(Debug)]
pub struct Batch {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// The delivery tag of the last one; acknowledging up to it covers all.
    pub last_tag: u64,
    /// The size of all bodies.
    pub bytes: usize,
}

/// Waits for a first delivery and collects more until a limit or
/// [`MAX_BATCH_BYTES`] is reached.
///
/// Cancel safe: collected messages stay unacknowledged and return to the queue
/// when the channel is closed.
///
/// # Errors
/// The end of the consumer, which is final.
pub async fn collect(consumer: &mut Consumer, limits: BatchLimits) -> Result<Batch, BrokerError> {
    let first = consumer.next().await?;
    let mut bytes = first.message.body.len();
    let mut last_tag = first.tag;
    let mut deliveries = vec![first];
    let deadline = Instant::now() + limits.max_wait;
    while deliveries.len() < limits.max_messages && bytes < MAX_BATCH_BYTES {
        match timeout_at(deadline, consumer.next()).await {
            Ok(delivery) => {
                let delivery = delivery?;
                bytes += delivery.message.body.len();
                last_tag = delivery.tag;
                deliveries.push(delivery);
            }
            Err(_) => break,
        }
    }
    Ok(Batch { deliveries, last_tag, bytes })
}
