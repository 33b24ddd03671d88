//! Publishes unrouted messages again once the queue of their source exists,
//! and dead-letters those whose source is not configured.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tracing::{info, warn};

use super::{
    ConsumerError, WorkerContext,
    consume::BatchHandler,
    retry_or_dead_letter::{self, Unprocessable},
};
use crate::{
    broker::{
        BatchLimits, BrokerConnection, Confirmed, Delivery, IncomingMessage, OutgoingMessage,
    },
    domain::{PermanentFailure, ReasonCode, SourceName},
};

/// One message at a time: each republish may declare the topology again.
pub(super) const LIMITS: BatchLimits = BatchLimits { max_messages: 1, max_wait: Duration::ZERO };
/// The pause after each message. A queue that is deleted again and again must
/// not make its messages circulate without a pause.
const REROUTE_INTERVAL: Duration = Duration::from_millis(20);

/// Handles the queue of unrouted messages.
pub(super) struct UnroutedConsumer {
    pub(super) context: WorkerContext,
    pub(super) connection: Arc<BrokerConnection>,
}

impl BatchHandler for UnroutedConsumer {
    async fn handle(
        &self,
        deliveries: Vec<Delivery>,
        now: OffsetDateTime,
    ) -> Result<Duration, ConsumerError> {
        for delivery in deliveries {
            self.reroute(delivery.message, now).await?;
        }
        Ok(REROUTE_INTERVAL)
    }
}

impl UnroutedConsumer {
    async fn reroute(
        &self,
        message: IncomingMessage,
        now: OffsetDateTime,
    ) -> Result<(), ConsumerError> {
        let WorkerContext { topology, publisher, .. } = &self.context;
        let source = message.routing_key.parse::<SourceName>().ok();
        if source.is_some_and(|source| topology.sources().contains(&source)) {
            // The queue or its binding may have been deleted.
            topology.declare(&self.connection).await?;
            let outgoing = OutgoingMessage::republish(topology, &message);
            let _durable: Confirmed = publisher.publish(outgoing).await?;
            info!(source = message.routing_key, "an unrouted message was published again");
            return Ok(());
        }
        warn!(routing_key = message.routing_key, "a message is for no configured source");
        let failure = PermanentFailure {
            reason: ReasonCode::UnknownSource,
            field: "routing_key".to_owned(),
            detail: "no source of this name is configured".to_owned(),
        };
        let unprocessable = Unprocessable { incoming: message, business_key: None, failure };
        retry_or_dead_letter::dead_letter(&self.context, vec![unprocessable], now).await
    }
}
