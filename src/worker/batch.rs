//! A micro-batch: so many messages, or what came in so much time.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::broker::{BrokerError, Consumer, Delivery};

/// A batch of more bytes than this is full. With its default `work_mem` of
/// 4 MB PostgreSQL takes so much in one statement without writing it to a
/// temporary file first, and memory is dear.
pub const MAX_BATCH_BYTES: usize = 3 * 1024 * 1024;

/// Deliveries in the order in which they came; never none.
#[derive(Debug)]
pub struct Batch {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// The last one's tag: acknowledging up to it settles all of them.
    pub last_tag: u64,
    /// The size of their bodies.
    pub bytes: usize,
}

/// Waits for a first delivery and collects more until there are `size` of
/// them, or 3 MiB, or `wait` has passed.
///
/// Safe to be dropped: what was collected is unsettled and goes back to the
/// queue with its channel.
///
/// # Errors
/// The subscription's end; it is final.
pub async fn collect(
    from: &mut Consumer,
    size: usize,
    wait: Duration,
) -> Result<Batch, BrokerError> {
    let first = from.next().await?;
    let mut bytes = first.message.body.len();
    let mut last = first.tag;
    let mut deliveries = vec![first];
    let deadline = Instant::now() + wait;
    while deliveries.len() < size && bytes < MAX_BATCH_BYTES {
        match timeout_at(deadline, from.next()).await {
            Ok(delivery) => {
                let delivery = delivery?;
                bytes += delivery.message.body.len();
                last = delivery.tag;
                deliveries.push(delivery);
            }
            Err(_) => break,
        }
    }
    Ok(Batch { deliveries, last_tag: last, bytes })
}
