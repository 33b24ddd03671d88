//! The rerouter: takes what found no queue, and sends it in again once its
//! source's queue exists, or to the dead if there is no such source.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    ConsumerError, WorkerContext, retry_or_dead_letter, retry_or_dead_letter::Unprocessable,
};
use crate::{
    broker::{BrokerConnection, Confirmed, Consumer, Delivery, OutgoingMessage},
    domain::{PermanentFailure, ReasonCode, SourceName},
};

/// Between two messages that found no queue: a queue that is deleted again
/// and again must not make us run in circles.
const REROUTE_INTERVAL: Duration = Duration::from_millis(20);

/// Reads the queue of the unrouted.
pub(super) struct UnroutedConsumer {
    context: WorkerContext,
    consumer: Consumer,
    connection: Arc<BrokerConnection>,
}

impl UnroutedConsumer {
    pub(super) async fn open(
        tools: WorkerContext,
        link: Arc<BrokerConnection>,
    ) -> Result<Self, ConsumerError> {
        let subscription = Consumer::open(&link, &tools.topology.unrouted_queue(), 10).await?;
        Ok(Self { context: tools, consumer: subscription, connection: link })
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), ConsumerError> {
        let result = self.work(&stop).await;
        self.consumer.close().await;
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), ConsumerError> {
        loop {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                delivery = self.consumer.next() => delivery?,
            };
            let tag = delivery.tag;
            self.reroute(delivery).await?;
            self.consumer.ack_up_to(tag).await?;
            tokio::time::sleep(REROUTE_INTERVAL).await;
        }
    }

    async fn reroute(&self, delivery: Delivery) -> Result<(), ConsumerError> {
        let parcel = delivery.message;
        let source = parcel.routing_key.parse::<SourceName>().ok();
        let known = source.is_some_and(|source| self.context.topology.sources().contains(&source));
        if known {
            // Whatever was deleted or unbound is there before it is sent.
            self.context.topology.declare(&self.connection).await?;
            let again = OutgoingMessage::republish(&self.context.topology, &parcel);
            let _durable: Confirmed = self.context.publisher.publish(again).await?;
            info!(source = parcel.routing_key, "an unrouted message was sent in again");
            return Ok(());
        }
        warn!(routing_key = parcel.routing_key, "a message for no source of ours");
        let failure = PermanentFailure {
            reason: ReasonCode::UnknownSource,
            field: "routing_key".to_owned(),
            detail: "no source of this name is configured".to_owned(),
        };
        retry_or_dead_letter::dead_letter(
            &self.context,
            vec![Unprocessable { incoming: parcel, business_key: None, failure }],
        )
        .await
    }
}
