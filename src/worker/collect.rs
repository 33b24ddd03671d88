//! A micro-batch: so many messages, or what came in so much time.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::broker::{BrokerError, Delivery, Subscription};

/// Waits for a first delivery and collects more until there are `size` of
/// them or `wait` has passed. Never empty.
///
/// Safe to be dropped: what was collected is unsettled and goes back to the
/// queue with its channel.
///
/// # Errors
/// The subscription's end; it is final.
pub async fn batch(
    from: &mut Subscription,
    size: usize,
    wait: Duration,
) -> Result<Vec<Delivery>, BrokerError> {
    let mut batch = vec![from.next().await?];
    let deadline = Instant::now() + wait;
    while batch.len() < size {
        match timeout_at(deadline, from.next()).await {
            Ok(delivery) => batch.push(delivery?),
            Err(_) => break,
        }
    }
    Ok(batch)
}
