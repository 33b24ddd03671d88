//! Moves dead letters from their queue into `dead_letters`. The only consumer of that queue while
//! workers run.

use std::time::Duration;

use time::OffsetDateTime;
use tracing::debug;

use super::{ConsumerError, WorkerContext, consume::BatchHandler};
use crate::{
    broker::{BatchLimits, Delivery},
    domain::{DeadLetter, Outcome, SourceName},
    store::dead_letters,
};

/// Latency is not critical here.
pub(super) const LIMITS: BatchLimits =
    BatchLimits { max_messages: 100, max_wait: Duration::from_millis(20) };

/// Archives the batches of the dead-letter queue.
pub(super) struct DeadLetterArchiver {
    pub(super) context: WorkerContext,
}

impl BatchHandler for DeadLetterArchiver {
    async fn handle(
        &self,
        deliveries: Vec<Delivery>,
        now: OffsetDateTime,
    ) -> Result<Duration, ConsumerError> {
        let WorkerContext { store, sources, metrics, .. } = &self.context;
        let dead_letters = DeadLetter::newest_copies(
            deliveries.into_iter().map(|delivery| delivery.message.into_dead_letter(now)),
        );
        dead_letters::archive(store, self.context.database_retry_timeout(), &dead_letters).await?;
        for DeadLetter { envelope, reason, .. } in &dead_letters {
            let reason = reason.as_str();
            debug!(receipt_id = %envelope.receipt_id, reason, "the dead letter is archived");
            // Only configured sources become labels: a producer may use any routing key.
            let is_known = sources.contains_key(&envelope.source);
            let source = if is_known { envelope.source.clone() } else { SourceName::unknown() };
            metrics.record_outcomes(&source, std::iter::once(Outcome::Dead));
        }
        Ok(Duration::ZERO)
    }
}
